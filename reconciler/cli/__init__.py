"""``trueup`` on the command line: the same operations as the API's, for the people on the control plane's host."""

from __future__ import annotations

import logging
import sys

import structlog
import typer

from reconciler import __version__
from reconciler.cli import (
    admin,
    backups,
    control,
    domains,
    environments,
    jobs,
    nodes,
    plans,
    promote,
    releases,
    removals,
    sites,
)
from reconciler.cli.output import fail
from reconciler.core.errors import TrueupError

app = typer.Typer(
    name="trueup",
    help="GitOps for WordPress hosting: a Git store says what each site should be, a loop makes it so.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(nodes.app, name="node")
app.add_typer(sites.app, name="site")
app.add_typer(domains.app, name="domain")
app.add_typer(jobs.app, name="job")
app.add_typer(admin.app, name="admin")
app.add_typer(backups.app, name="backup")
app.add_typer(backups.secrets, name="secret")
for module in (control, plans, environments, releases, promote, removals):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Entry point: errors that Trueup raises on purpose become one line and exit code 1."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        app()
    except TrueupError as error:
        fail(error.message)
