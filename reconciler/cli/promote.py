"""``trueup promote``: move an environment's changes up, or say what would move."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated
from uuid import UUID

import typer

from reconciler.cli.context import actor, environment_named, opened
from reconciler.cli.jobs import finish
from reconciler.cli.output import Format, Output, data, say, show
from reconciler.core.errors import Invalid
from reconciler.core.intents.content import refuse_unpromotable
from reconciler.core.promotion_preview import BECAUSE, Difference, Preview, Verdict
from reconciler.core.promotion_selection import GROUPS, MOST_SELECTORS, SELECTOR
from reconciler.core.visible import visible
from reconciler.home import Home, clock
from reconciler.operations.promotion_preview import Previewed, preview_of

HEADINGS: dict[Verdict, str] = {
    "moves": "Moves",
    "conflicts": "Blocks, as both changed it",
    "left_behind": "Is left behind, although the source changed it",
    "stays": "Stays, as the target has it",
}


def register(app: typer.Typer) -> None:
    app.command()(promote)


def promote(
    source: Annotated[str, typer.Argument(help="The environment that changed: site/environment.")],
    target: Annotated[str, typer.Argument(help="The environment that gets it: site/environment.")],
    include: Annotated[
        list[str] | None,
        typer.Option(help="Move this alone: group:NAME, option:NAME or plugin:NAME; may be repeated."),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave this; may be repeated.")] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Check the source for drift, say what would move, and move nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it is done.")] = True,
    output: Output = Format.TABLE,
) -> None:
    """Move code and settings up; what the target's customers and authors made stays."""
    with opened() as home:
        fleet = home.state.fleet()
        here, there = environment_named(fleet, source), environment_named(fleet, target)
        if preview:
            tell(_fresh(home, here.id, there.id, quiet=output is not Format.TABLE), output)
            return
        chosen = [selectors(include or ()), selectors(exclude or ())]
        job_id = home.operations.promote(here.id, there.id, actor(), include=chosen[0], exclude=chosen[1])
        finish(home, job_id, wait=wait)


def selectors(said: Iterable[str]) -> tuple[str, ...]:
    """What was chosen, as a request has it.

    Raises:
        Invalid: one of them is no selector, or there are too many.
    """
    found = tuple(said)
    wrong = next((one for one in found if not re.fullmatch(SELECTOR, one)), None)
    if wrong is not None:
        raise Invalid(f"{visible(wrong, 80)} is neither group:NAME, option:NAME nor plugin:NAME. Groups: {GROUPS}.")
    if len(found) > MOST_SELECTORS:
        raise Invalid(f"More than {MOST_SELECTORS} are too many. Choose groups.")
    return found


def _fresh(home: Home, source: UUID, target: UUID, *, quiet: bool) -> Previewed:
    refuse_unpromotable(*map(home.state.fleet().environment, (source, target)))
    finish(home, home.operations.drift_check(source, actor()), wait=True, err=quiet)
    return preview_of(source, target, home.state, clock())


def tell(found: Previewed, output: Format) -> None:
    """Print what a promotion would do: what moves first, and in the end what it would be refused for."""
    if output is not Format.TABLE:
        unmet = {"code": found.unmet.code, "message": found.unmet.message} if found.unmet else None
        told = {"checked_at": found.checked_at, "job_id": found.job_id, "unmet": unmet}
        data({**told, "preview": found.preview.model_dump(mode="json") if found.preview else None}, output)
        return
    if found.preview:
        _tell_all(found.preview)
    if found.unmet:
        say(f"A promotion would be refused now: {found.unmet.message}")


def _tell_all(preview: Preview) -> None:
    for verdict, heading in HEADINGS.items():
        named: tuple[Difference, ...] = getattr(preview, verdict)
        counts = preview.counts.get(verdict, {})
        if not counts:
            continue
        say(f"{heading}: {', '.join(_so_many(n, kind) for kind, n in counts.items())}.")
        show([_row(one) for one in named], ("kind", "name", "change", "details", "why"), Format.TABLE)
        say()
    if not any(preview.counts.values()):
        say("Both sides have the same.")


def _so_many(count: int, what: str) -> str:
    return f"{count} {what.replace('_', ' ')}{'' if count == 1 else 's'}"


def _row(one: Difference) -> dict[str, object]:
    name = one.name or (f"number {one.number}" if one.number is not None else None)
    counted = [_so_many(one.count, "row" if one.kind == "table" else "file")] if one.count is not None and name else []
    details = [*one.details, *counted] if name else [str(one.count)]
    return {
        "kind": one.kind,
        "name": name,
        "change": one.change,
        "details": ", ".join(details) or None,
        "why": BECAUSE[one.reason],
    }
