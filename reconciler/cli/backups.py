"""``trueup backup`` and ``trueup secret``: what is kept in storage, and what opens it."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from typing import Annotated
from uuid import UUID

import typer

from reconciler.cli.context import actor, environment_named, opened, settings, tools_of
from reconciler.cli.jobs import finish
from reconciler.cli.output import Format, Output, say, show
from reconciler.core.errors import Invalid
from reconciler.core.manifests import BackupScope
from reconciler.storage.secret_store import Secrets

app = typer.Typer(help="Backups.", no_args_is_help=True)
secrets = typer.Typer(help="Secrets of the control plane, encrypted in its home.", no_args_is_help=True)

Environment = Annotated[str, typer.Argument(help="The environment: site/environment.")]
Wait = Annotated[bool, typer.Option(help="Wait until it is done.")]


@app.command("list")
def list_backups(environment: Environment, output: Output = Format.TABLE) -> None:
    """An environment's backups, newest first."""
    with opened() as home:
        found = home.records.backups.of(environment_named(home.state.fleet(), environment).id)
        rows = [
            {
                "id": one.id,
                "scope": one.backup_scope,
                "status": one.status,
                "size_bytes": one.size_bytes,
                "created_at": one.created_at.isoformat(timespec="seconds"),
                "retention_until": one.retention_until.isoformat(timespec="seconds") if one.retention_until else None,
                "drilled_at": one.drilled_at.isoformat(timespec="seconds") if one.drilled_at else None,
                "drill": one.drill_status,
                "drill_error": one.drill_error,
            }
            for one in found
        ]
        columns = ("id", "scope", "status", "size_bytes", "created_at", "retention_until", "drilled_at", "drill")
        show(rows, columns, output)


@app.command()
def create(environment: Environment, scope: BackupScope = BackupScope.FULL, wait: Wait = True) -> None:
    """Back an environment up."""
    with opened() as home:
        found = environment_named(home.state.fleet(), environment)
        finish(home, home.operations.back_up(found.id, scope, actor()), wait=wait)


@app.command()
def restore(
    environment: Environment, backup: Annotated[UUID, typer.Argument(help="The backup's id.")], wait: Wait = True
) -> None:
    """Put a backup of the same site in; what is there is backed up first."""
    from reconciler.storage.kept import restorable

    with opened() as home:
        fleet = home.state.fleet()
        found, record = environment_named(fleet, environment), home.records.backups.get(backup)
        version = str(restorable(record, found, fleet, home.settings)["wordpress_version"])
        job_id = home.operations.restore(found.id, backup, BackupScope(record.backup_scope), version, actor())
        finish(home, job_id, wait=wait)


@app.command()
def drill(environment: Environment, wait: Wait = True) -> None:
    """Try the newest backup: restore it into a throwaway copy on the node, check it, and take the copy away."""
    with opened() as home:
        found = environment_named(home.state.fleet(), environment)
        finish(home, home.operations.drill(found.id, actor()), wait=wait)


@app.command()
def rebuild() -> None:
    """Learn from the storage which backups there are, after the database was lost."""
    from reconciler.loop.backups import rebuild as learn

    with opened() as home, tools_of(home) as tools:
        for id_ in learn(tools):
            say(str(id_))


@secrets.command("set")
def set_secret(name: Annotated[str, typer.Argument(help="The secret's name, as a document names it.")]) -> None:
    """Keep a secret; its value, a JSON object of texts, comes from standard input."""
    try:
        value = json.loads(sys.stdin.read())
    except ValueError as error:
        raise Invalid('Give a JSON object, such as {"access_key": "…", "secret_key": "…"}.') from error
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Invalid('Give a JSON object of texts, such as {"access_key": "…", "secret_key": "…"}.')
    Secrets(settings().secrets).put(name, value)


@secrets.command("list")
def list_secrets() -> None:
    """Names of the secrets; never their values."""
    for name in Secrets(settings().secrets).names():
        say(name)


@secrets.command("export")
def export_secrets() -> None:
    """Write an archive of the secrets as they are kept, encrypted, to standard output. Their key is not in it."""
    if sys.stdout.isatty():
        raise Invalid("An archive is nothing for a terminal. Send it to a file: trueup secret export > secrets.tar")
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for name, content in Secrets(settings().secrets).sealed().items():
            member = tarfile.TarInfo(f"{name}.age")
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))


@secrets.command("key")
def show_key() -> None:
    """Show the key that opens all secrets. Keep it elsewhere than the secrets."""
    say(Secrets(settings().secrets).key())


@secrets.command("remove")
def remove_secret(name: Annotated[str, typer.Argument(help="The secret's name.")]) -> None:
    """Forget a secret."""
    Secrets(settings().secrets).remove(name)
