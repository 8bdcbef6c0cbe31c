"""How commands answer: a table for people, JSON or YAML for programs. NO_COLOR is honoured."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("--output", "-o", help="Shape of the answer.")]


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], output: Format) -> None:
    """Print rows: all fields as JSON or YAML, the named columns as a table."""
    if output is Format.TABLE:
        _table(rows, columns)
    else:
        data(list(rows), output)


def data(value: Any, output: Format) -> None:
    """Print a value as JSON or YAML."""
    if output is Format.JSON:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        return
    from ruamel.yaml import YAML

    plain = json.loads(json.dumps(value, default=str))
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(plain, text)
    typer.echo(text.getvalue(), nl=False)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    console().print(table)


def cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
    return str(value)


def console() -> Console:
    from rich.console import Console

    # Not a terminal: as wide as need be, so that whoever reads the table finds whole words.
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 1000)


def log_to_stderr() -> None:
    """Warnings only; what a command answers is alone on standard output."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        # Whatever standard error is by then: a caller may have put another one in its place meanwhile.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def fail(message: str, code: int = 1) -> NoReturn:
    """One line on standard error, and the exit code."""
    typer.echo(f"trueup: {message}", err=True)
    sys.exit(code)
