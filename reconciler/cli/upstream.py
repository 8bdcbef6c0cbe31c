"""``trueup upstream``: the repository that the store follows, and what it left no room for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reconciler.cli import forge
from reconciler.cli.context import opened, settings
from reconciler.cli.output import Format, Output, data, fail, say
from reconciler.home import Home, clock
from reconciler.operations import hooks
from reconciler.store import standing
from reconciler.store.standing import Standing

app = typer.Typer(help="The repository that the store follows.", no_args_is_help=True)


@app.command()
def status(output: Output = Format.TABLE) -> None:
    """How the store stands with it: since when, what waits to be pushed, what was left out."""
    with opened() as home:
        found, told = report(home), lines(home)
    if output is not Format.TABLE:
        data(found, output)
        return
    for line in told or ["This store follows no repository. Set TRUEUP_UPSTREAM."]:
        say(line)


@app.command()
def sync() -> None:
    """Fetch, take over and push now. Exit code 1 when both are not in step then."""
    from reconciler.loop.following import Following

    with opened() as home:
        _tell(home, Following(home.settings, home.state, clock).look())


@app.command()
def accept(commit: Annotated[str, typer.Argument(help="The full id of the commit that upstream is at.")]) -> None:
    """Take over a history that is no continuation of what was accepted: rewritten, rolled back, or another one.

    What was accepted and is not in it any more goes; what was committed here and never pushed comes on top.
    """
    from reconciler.loop.following import Following

    with opened() as home:
        _tell(home, Following(home.settings, home.state, clock).take_over(commit))


@app.command()
def hook() -> None:
    """Make the secret that a forge signs its hooks with, in place of an earlier one, and show it this once."""
    say(hooks.make_key(settings()))


@app.command()
def forget(
    commit: Annotated[str, typer.Argument(help="The id of a commit that was left out, or its beginning.")],
) -> None:
    """Keep a commit that was left out no longer."""
    with opened() as home:
        say(f"Forgotten: {home.state.repository.upstream.forget(commit)}")


def report(home: Home) -> dict[str, Any] | None:
    """For programs; None: no repository is followed."""
    if home.settings.upstream is None:
        return None
    upstream, found = home.state.repository.upstream, standing.read(home.settings.upstream_standing)
    return {
        **(found.model_dump(mode="json") if found else {"state": "unknown"}),
        "accepted": upstream.accepted(),
        "waiting": upstream.waiting(),
        "dropped": [vars(dropped) for dropped in upstream.dropped()],
        "forge": forge.report(home),
    }


def lines(home: Home) -> list[str]:
    """For people."""
    if home.settings.upstream is None:
        return []
    found = standing.read(home.settings.upstream_standing)
    return [_line(home, found), *_left_out(home), *forge.lines(home)]


def _line(home: Home, found: Standing | None) -> str:
    if found is None:
        return "upstream: nobody has looked yet. Is `trueup serve` running?"
    waiting = home.state.repository.upstream.waiting()
    since = f"{found.state} since {found.since.isoformat(timespec='seconds')}"
    commits = f", {waiting} commits wait to be pushed" if waiting else ""
    if found.is_well:
        return f"upstream {found.remote}: {since}{commits}"
    why = f" ({found.reason})" if found.reason else ""
    return f"UPSTREAM {found.remote}: {since}{why}{commits}. {found.message}"


def _left_out(home: Home) -> list[str]:
    return [
        f'left out {one.id[:12]} "{one.subject}"{f" (job {one.job})" if one.job else ""}: {one.reason}'
        for one in home.state.repository.upstream.dropped()
    ]


def _tell(home: Home, found: Standing) -> None:
    for line in lines(home):
        say(line)
    if not found.is_well:
        fail(f"not in step with upstream: {found.state}.")
