"""``validate`` and ``plan``: with ``--base`` what a pull request means, with no secret and no way to any node.

What a control plane needs is imported where it is used: a CI has none.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from reconciler.cli.output import Format, data, fail, log_to_stderr, say, say_lines
from reconciler.core.entries import Stalled
from reconciler.core.errors import Invalid, NotFound
from reconciler.core.fleet import Fleet
from reconciler.core.review import Review, review
from reconciler.core.review.views import markdown, review_data, text
from reconciler.core.snapshot import FleetSnapshot
from reconciler.reading import Documents, read_fleet

Targets = Annotated[
    list[str] | None,
    typer.Argument(help="Nodes, sites, or site/environment; left out: everything.", show_default=False),
]


class PlanFormat(StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


class Problems(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    GITHUB = "github"
    """Annotations of a pull request's lines."""


def validate(
    path: Annotated[Path, typer.Argument(help="A clone or a part of it, a bare repository, or a directory.")] = Path(),
    ref: Annotated[str | None, typer.Option(help="Of a clone: this commit, not what lies there.")] = None,
    staged: Annotated[bool, typer.Option("--staged", help="Of a clone: what would be committed now.")] = False,
    output: Annotated[Problems, typer.Option("--output", "-o", help="Shape of the answer.")] = Problems.TABLE,
) -> None:
    """Check documents against their models and each other; file and line for each problem, exit code 1 if any."""
    fleet = _fleet(path, ref, staged=staged)
    if output in {Problems.JSON, Problems.YAML}:
        data([stalled.data() for stalled in fleet.stalled], Format(output.value))
    elif output is Problems.GITHUB:
        for stalled in fleet.stalled:
            say(annotation(stalled, path))
    else:
        for stalled in fleet.stalled:
            say(str(stalled))
    counted = f"{len(fleet.nodes)} nodes, {len(fleet.sites)} sites, {len(fleet.environments)} environments"
    if fleet.stalled:
        fail(f"{len(fleet.stalled)} of the documents in {path} cannot be used ({counted}).")
    say(f"{path}: {counted}; all is well.", err=output is not Problems.TABLE)


def _fleet(path: Path, ref: str | None, *, staged: bool) -> Fleet:
    if ref is None and not staged:
        return read_fleet(path)
    if ref is not None and staged:
        raise Invalid("--ref and --staged are two things to check. Give one.")
    with Documents(path) as documents:
        return documents.staged() if ref is None else documents.at(ref)


def annotation(stalled: Stalled, top: Path) -> str:
    """The problem as GitHub's runner shows it beside the line."""
    file = stalled.path if top == Path() else f"{top.as_posix()}/{stalled.path}"
    place = f"file={_escaped(file, ':,')},line={stalled.line or 1}"
    place += f",col={stalled.column}" if stalled.column else ""
    return f"::error {place},title=Document cannot be used::{_escaped(stalled.message)}"


def _escaped(text: str, more: str = "") -> str:
    for char in f"%\r\n{more}":
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def plan(
    targets: Targets = None,
    output: Annotated[
        PlanFormat, typer.Option("--output", "-o", "--format", help="Shape of the plan.")
    ] = PlanFormat.TEXT,
    observe: Annotated[bool, typer.Option(help="Ask the nodes now; otherwise what they last answered.")] = True,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 0: no changes, 1: error, 2: changes.")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="Of a clone: what merging into this would do. Asks no node and needs no home.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="With --base: this commit, not what lies in the clone.")] = None,
    snapshot: Annotated[
        Path | None, typer.Option(help="With --base: what was last observed, as `trueup snapshot` writes it.")
    ] = None,
    store: Annotated[Path, typer.Option(help="With --base: the clone, or the part of it with the documents.")] = Path(),
) -> None:
    """Show what differs between desired and observed, and what would be done. Changes nothing."""
    if base is not None:
        if targets:
            raise Invalid("A pull request is planned as a whole. Leave the targets out, or --base.")
        show_review(store, base, head, snapshot, output, detailed_exitcode=detailed_exitcode)
        return
    if head is not None or snapshot is not None:
        raise Invalid("--head and --snapshot are for planning a pull request. Give --base, too.")
    from reconciler.cli.plans import show_plan

    log_to_stderr()
    show_plan(targets, output, observe=observe, detailed_exitcode=detailed_exitcode)


def show_review(
    store: Path, base: str, head: str | None, snapshot: Path | None, output: PlanFormat, *, detailed_exitcode: bool
) -> None:
    """Print what merging into ``base`` would do, and end with the exit code that says it."""
    # Nothing that is read here is let go before the end; looking for what is takes a quarter of the time.
    gc.disable()
    known = _snapshot(snapshot)
    with Documents(store) as documents:
        before, after = documents.merging(base, head)
    found = review(before, after, known, datetime.now(UTC))
    match output:
        case PlanFormat.JSON:
            data(review_data(found), Format.JSON)
        case PlanFormat.MARKDOWN:
            say_lines(markdown(found))
        case PlanFormat.TEXT:
            say_lines(text(found))
    if found.plan.stalled:
        fail(
            f"{len(found.plan.stalled)} of the documents cannot be used; the plan names them. Correct them, plan again."
        )
    if code := _exit_code(found, detailed=detailed_exitcode):
        raise typer.Exit(code)


def _exit_code(found: Review, *, detailed: bool) -> int:
    if not detailed:
        return 0
    if found.plan.silent:
        return 1
    return 0 if found.is_empty else 2


def _snapshot(path: Path | None) -> FleetSnapshot | None:
    if path is None:
        return None
    try:
        return FleetSnapshot.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"There is no snapshot {path}. Write one with `trueup snapshot -o {path}`.") from error
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise Invalid(f"{path} is no snapshot: {where}: {first['msg']}. Write it with `trueup snapshot`.") from error


COMMANDS: dict[str, Callable[..., None]] = {"validate": validate, "plan": plan}


def register(app: typer.Typer) -> None:
    for command in COMMANDS.values():
        app.command()(command)


app = typer.Typer(name="trueup", no_args_is_help=True, pretty_exceptions_enable=False)
"""These commands alone."""
register(app)
