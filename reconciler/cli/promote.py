"""``trueup promote``: move an environment's changes up."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.context import actor, environment_named, opened
from reconciler.cli.jobs import finish


def register(app: typer.Typer) -> None:
    app.command()(promote)


def promote(
    source: Annotated[str, typer.Argument(help="The environment that changed: site/environment.")],
    target: Annotated[str, typer.Argument(help="The environment that gets it: site/environment.")],
    wait: Annotated[bool, typer.Option(help="Wait until it is done.")] = True,
) -> None:
    """Move code and settings up; what the target's customers and authors made stays."""
    with opened() as home:
        fleet = home.state.fleet()
        here, there = environment_named(fleet, source), environment_named(fleet, target)
        finish(home, home.operations.promote(here.id, there.id, actor()), wait=wait)
