"""Every command of ``trueup``."""

from __future__ import annotations

import typer

from reconciler import __version__
from reconciler.cli import (
    admin,
    adopting,
    backups,
    by_hand,
    control,
    domains,
    environments,
    events,
    jobs,
    nodes,
    plans,
    promote,
    releases,
    removals,
    reports,
    reviews,
    sites,
    upstream,
)
from reconciler.cli.commands import Commands
from reconciler.cli.output import say

app = typer.Typer(
    name="trueup",
    cls=Commands,
    help="GitOps for WordPress hosting: a Git store says what each site should be, a loop makes it so.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(nodes.app, name="node")
app.add_typer(sites.app, name="site")
app.add_typer(domains.app, name="domain")
app.add_typer(jobs.app, name="job")
app.add_typer(events.app, name="events")
app.add_typer(upstream.app, name="upstream")
app.add_typer(admin.app, name="admin")
app.add_typer(backups.app, name="backup")
app.add_typer(backups.secrets, name="secret")
for module in (control, reviews, plans, reports, adopting, environments, releases, promote, removals, by_hand):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass
