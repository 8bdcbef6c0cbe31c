"""``init``, ``serve``, ``fetch``: the control plane itself."""

from __future__ import annotations

import logging
from typing import Annotated

import structlog
import typer

from reconciler.artifacts import fetch_wordpress, fetch_wp_cli
from reconciler.cli.context import actor, opened, settings
from reconciler.core.manifests import WordPressDefaults
from reconciler.home import create
from reconciler.settings import Settings
from reconciler.store.repository import Author


def register(app: typer.Typer) -> None:
    for command in (init, serve, fetch):
        app.command()(command)


def init() -> None:
    """Make a home (TRUEUP_HOME): store, database, ssh key. Running it again changes nothing."""
    where, who = settings(), actor()
    create(where, Author(who.name, who.email))
    typer.echo(f"Home: {where.home}")
    typer.echo(f"Store: {where.store} (clone it, push to it)")
    typer.echo("Put this key into the authorized_keys of root on each node:")
    typer.echo(where.ssh_key.with_suffix(".pub").read_text().strip())


def serve() -> None:
    """Run the API, the workers and the loop until stopped."""
    from api.app import create_app
    from api.dependencies import Dependencies
    from reconciler.nodes.connection import Connections
    from reconciler.serve import serve as run

    with opened() as home, Connections() as connections:
        _log(home.settings)
        run(home, create_app(Dependencies(home.settings, home.state, home.operations, connections)))


def fetch(
    version: Annotated[str, typer.Option(help="The WordPress version.")] = WordPressDefaults().version,
) -> None:
    """Fetch WordPress and WP-CLI into the home's cache, verified against their pins."""
    where = settings()
    for archive in (
        fetch_wp_cli(where.artifacts, progress=typer.echo),
        fetch_wordpress(version, where.artifacts, progress=typer.echo),
    ):
        typer.echo(f"{archive.path}: {archive.version}")


def _log(where: Settings) -> None:
    shape = structlog.processors.JSONRenderer() if where.log_format == "json" else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info
            if where.log_format == "json"
            else structlog.processors.StackInfoRenderer(),
            shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    logging.basicConfig(level=logging.WARNING)
