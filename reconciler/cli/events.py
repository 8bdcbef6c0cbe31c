"""``trueup events``: what waits in a copy because it came with its content, and its release."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from reconciler.cli.context import actor, environment_named, opened
from reconciler.cli.output import Format, Output, say, show
from reconciler.core.errors import Invalid
from reconciler.home import clock

if TYPE_CHECKING:
    from reconciler.nodes.held import Held
    from reconciler.operations.held import HeldEvents

app = typer.Typer(help="Due events, scheduled actions and webhooks that wait in a copy.", no_args_is_help=True)
Key = Annotated[str, typer.Argument(help="The copy, as SITE/ENVIRONMENT.")]
COLUMNS = ("kind", "name", "count", "due_at")


@app.command("list")
def list_(environment: Key, output: Output = Format.TABLE) -> None:
    """What waits there, by name."""
    _show(environment, lambda held, id_: held.of(id_), output, "Nothing waits.")


@app.command()
def release(
    environment: Key,
    names: Annotated[list[str] | None, typer.Argument(help="Of events, actions and webhooks, as `list` shows.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that waits.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Have it wait no longer: what was due runs within a minute. What it reaches is another matter: spec.egress."""
    if bool(names) == everything:
        raise Invalid("Say what to release: names, as `trueup events list` shows them, or --all.")
    _show(
        environment,
        lambda held, id_: held.release(id_, None if everything else names, actor(), clock()),
        output,
        "Nothing of that name waits.",
    )


def _show(
    environment: str, act: Callable[[HeldEvents, UUID], tuple[Held, ...]], output: Format, otherwise: str
) -> None:
    from reconciler.nodes.connection import Connections
    from reconciler.operations.held import HeldEvents

    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        connections = Connections()
        try:
            found = act(HeldEvents(home.settings, home.state, connections), target.id)
        finally:
            connections.close()
    if output is Format.TABLE and not found:
        say(otherwise)
        return
    show([one.model_dump() for one in found], COLUMNS, output)
