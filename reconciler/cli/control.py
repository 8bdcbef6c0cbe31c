"""``init``, ``serve``, ``fetch``, ``snapshot``: the control plane itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import structlog
import typer

from reconciler.artifacts.pins import fetch_wordpress, fetch_wp_cli
from reconciler.cli.context import actor, opened, settings
from reconciler.cli.output import VisibleFormatter, for_a_terminal, say, say_lines
from reconciler.core.errors import Invalid
from reconciler.core.manifests import WordPressDefaults
from reconciler.core.visible import visible_json
from reconciler.home import clock, create
from reconciler.operations.sharing import snapshot_of
from reconciler.roles import current_roles
from reconciler.settings import Settings
from reconciler.store.repository import Author


def register(app: typer.Typer) -> None:
    for command in (init, serve, fetch, snapshot):
        app.command()(command)


def init(
    from_: Annotated[str | None, typer.Option("--from", help="Bring a lost home back from what it followed.")] = None,
    branch: Annotated[str | None, typer.Option(help="The branch there; TRUEUP_UPSTREAM_BRANCH where left out.")] = None,
    path: Annotated[
        str | None, typer.Option(help="Its folder that has the documents; TRUEUP_UPSTREAM_PATH where left out.")
    ] = None,
    secrets_key: Annotated[Path | None, typer.Option(help="The lost home's secrets/key.")] = None,
    secrets: Annotated[Path | None, typer.Option(help="The lost home's secrets: a directory or an archive.")] = None,
    ssh_key: Annotated[
        Path | None, typer.Option(help="The lost home's private key to the nodes; else a new one.")
    ] = None,
) -> None:
    """Make a home (TRUEUP_HOME): store, database, ssh key. Running it again changes nothing."""
    where, who = settings(), actor()
    author = Author(who.name, who.email)
    if from_ is not None:
        from reconciler.cli.recovering import bring_back
        from reconciler.recovery import Survivors
        from reconciler.store.remote import Remote

        remote = Remote.parse(
            from_,
            where.upstream_branch if branch is None else branch,
            where.upstream_path if path is None else path,
            ("--from", "--branch", "--path"),
        )
        bring_back(where, Survivors(remote, secrets_key, secrets, ssh_key), author)
        return
    if branch or path or secrets_key or secrets or ssh_key:
        raise Invalid("--branch, --path, --secrets-key, --secrets, --ssh-key go with --from. Name the repository, too.")
    create(where, author)
    say(f"Home: {where.home}")
    say(f"Store: {where.store} (clone it, push to it)")
    say("Put this key into the authorized_keys of root on each node:")
    say(where.ssh_key.with_suffix(".pub").read_text().strip())


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
        fetch_wp_cli(where.artifacts, progress=say),
        fetch_wordpress(version, where.artifacts, progress=say),
    ):
        say(f"{archive.path}: {archive.version}")


def snapshot(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; left out: standard output.", dir_okay=False)
    ] = None,
) -> None:
    """Write the last observation of all nodes, for `trueup plan --base`: no secrets in it, and no node is asked."""
    with opened() as home:
        found = snapshot_of(home.state, current_roles(), clock())
    text = found.model_dump_json(exclude_defaults=True)
    if output is None:
        say_lines(f"{visible_json(text)}\n")
        return
    try:
        output.write_text(f"{text}\n")
    except OSError as error:
        raise Invalid(f"{output} cannot be written: {error.strerror}.") from error


def _log(where: Settings) -> None:
    as_json = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *(as_json if where.log_format == "json" else for_a_terminal()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter(logging.BASIC_FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
