"""How commands answer: a table for people, JSON or YAML for programs. NO_COLOR is honoured.

Much of what they say was named by a site, a node or a document. It reaches a terminal through these functions alone,
which show what a terminal would obey.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from reconciler.core.visible import visible, visible_json, visible_lines

if TYPE_CHECKING:
    from rich.console import Console


_TRACEBACKS = frozenset({"exception", "stack"})


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


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line."""
    typer.echo(visible(line), err=err)


def say_lines(text: str) -> None:
    """Print lines of ours, as they are."""
    typer.echo(visible_lines(text), nl=False)


def ask(question: str) -> None:
    """Ask, and end here unless the answer is yes."""
    typer.confirm(visible(question), abort=True)


def data(value: Any, output: Format) -> None:
    """Print a value as JSON or YAML."""
    if output is Format.JSON:
        typer.echo(visible_json(json.dumps(value, indent=2, ensure_ascii=False, default=str)))
        return
    from ruamel.yaml import YAML

    plain = json.loads(json.dumps(value, default=str))
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(plain, text)
    if visible_lines(text.getvalue()) != text.getvalue():
        text = io.StringIO()
        yaml.allow_unicode = False  # then it has an escape for each of them
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
    return visible(str(value))


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
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            *for_a_terminal(),
        ],
    )


def for_a_terminal() -> list[Any]:
    """structlog's last processors: what is logged is shown, and nothing of it is obeyed."""
    import structlog

    return [
        structlog.dev.set_exc_info,
        structlog.processors.format_exc_info,
        visible_values,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]


def visible_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For structlog. A traceback keeps its lines."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = visible_lines(value) if key in _TRACEBACKS else visible(value)
    return event


class VisibleFormatter(logging.Formatter):
    """For what libraries log."""

    def format(self, record: logging.LogRecord) -> str:
        return visible_lines(super().format(record))


def show_tracebacks() -> None:
    """What an error of ours says may have been said by somebody else."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(visible_lines("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = hook


def fail(message: str, code: int = 1) -> NoReturn:
    """The message on standard error, and the exit code."""
    # Further lines are told apart from those that a command writes.
    typer.echo(visible_lines("trueup: " + message.replace("\n", "\n  ")), err=True)
    sys.exit(code)
