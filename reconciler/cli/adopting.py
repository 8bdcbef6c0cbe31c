"""``trueup drift adopt`` and ``trueup drift discard``: what was changed on a node becomes desired, or goes."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from reconciler.cli.context import actor, environment_named, opened
from reconciler.cli.jobs import finish
from reconciler.cli.output import ask, fail, say
from reconciler.core.changes import changed_code
from reconciler.core.options import changed_options, shown
from reconciler.home import Home, clock
from reconciler.operations.proposing import propose_adoption

Key = Annotated[str, typer.Argument(help="The environment, as SITE/ENVIRONMENT.")]
Wait = Annotated[bool, typer.Option(help="Wait until it is done.")]


def register(app: typer.Typer) -> None:
    app.command("drift adopt")(adopt)
    app.command("drift discard")(discard)


def adopt(
    environment: Key,
    commit: Annotated[bool, typer.Option("--commit", help="Do it; otherwise what would be adopted is shown.")] = False,
    branch: Annotated[
        bool, typer.Option("--branch", help="Propose it: a branch of the followed repository, and a request there.")
    ] = False,
    wait: Wait = True,
) -> None:
    """Make what is on the node by now desired: code as a new release with its versions, declared options."""
    if commit and branch:
        fail("Give --commit or --branch, not both.")
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        found = _check(home, environment, core=False)
        if branch:
            _propose(home, target.id)
            return
        if not commit and not found:
            say(f"{environment}: nothing that could be adopted was changed.")
            return
        if not commit:
            fail("Nothing was adopted. With --commit this is; with --branch it is proposed.")
        finish(home, home.operations.adopt(target.id, actor()), wait=wait)


def discard(
    environment: Key,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    wait: Wait = True,
) -> None:
    """Go back to the code as it was released and the options as they are declared, after a full backup."""
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        _check(home, environment, core=True)
        if not yes:
            ask(f"Discard this in {environment}?")
        finish(home, home.operations.discard(target.id, actor()), wait=wait)


def _propose(home: Home, environment_id: UUID) -> None:
    proposal = propose_adoption(environment_id, home.state, home.settings, actor(), clock())
    say(f"branch {proposal.branch} at {proposal.commit[:12]}, to be merged into {proposal.base}")
    if proposal.url:
        say(proposal.url)
    say(proposal.note)


def _check(home: Home, environment: str, *, core: bool) -> list[str]:
    """Look now; what was changed, which is shown."""
    target = environment_named(home.state.fleet(), environment)
    finish(home, home.operations.drift_check(target.id, actor()), wait=True)
    check = home.records.drift_checks.latest(target.id)
    differences = check.differences if check else ()
    options = (f"option {name}: {shown(value)}" for name, value in changed_options(differences).items())
    found = [*changed_code(differences, core=core), *options]
    for one in found:
        say(f"{environment}  {one}")
    return found
