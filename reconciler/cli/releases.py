"""``trueup deploy``, ``trueup update`` and ``trueup rollback``: another release of an environment's code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import typer

from reconciler.cli.context import actor, environment_named, opened
from reconciler.cli.jobs import finish
from reconciler.cli.output import say
from reconciler.core.errors import Invalid
from reconciler.home import Home
from reconciler.operations.releases import earlier_release

Key = Annotated[str, typer.Argument(help="The environment, as SITE/ENVIRONMENT.")]
Wait = Annotated[bool, typer.Option(help="Wait until it is done.")]
_BLOCK = 1 << 20


def register(app: typer.Typer) -> None:
    for command in (deploy, update, rollback):
        app.command()(command)


def deploy(
    environment: Key,
    source: Annotated[
        str, typer.Argument(help="A repository as URL#REF, or an archive: a path, an https URL, upload:ID.")
    ],
    kind: Annotated[
        str | None, typer.Option("--type", help="git or upload; left out: upload for archives, else git.")
    ] = None,
    wait: Wait = True,
) -> None:
    """Release code from a Git repository or an archive."""
    from reconciler.sources.resolving import sources_of

    with opened() as home:
        fleet = home.state.fleet()
        target = environment_named(fleet, environment)
        source_type, ref = _source(home, source, kind)
        revision = sources_of(home.settings, fleet).resolve(source_type, ref)
        job_id = home.operations.deploy(target.id, source_type, ref, actor(), revision=revision)
        finish(home, job_id, wait=wait)
        left_out = (home.records.jobs.get(job_id).result or {}).get("left_out") if wait else None
    if left_out:
        say(f"Left out of the release: {', '.join(left_out)}")


class Scope(StrEnum):
    CORE = "core"
    PLUGINS = "plugins"
    THEMES = "themes"
    ALL = "all"


def update(
    environment: Key,
    scope: Annotated[Scope, typer.Option(help="What is updated.")] = Scope.ALL,
    wait: Wait = True,
) -> None:
    """Update WordPress, plugins or themes: rehearsed on a copy first, then backed up, then made."""
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        job_id = home.operations.update(target.id, scope.value, actor())
        finish(home, job_id, wait=wait)
        updated = (home.records.jobs.get(job_id).result or {}).get("updated") if wait else None
    for line in _told(updated) if updated else ():
        say(line)


def _told(updated: Mapping[str, Any]) -> Iterator[str]:
    core = updated["wordpress"]
    if core:
        yield f"WordPress {core['from']} → {core['to']}"
    yield from updated["packages"]
    if not core and not updated["packages"]:
        yield "Nothing to update."
    yield from updated["notes"]


def rollback(
    environment: Key,
    release: Annotated[
        UUID | None, typer.Option(help="The release's id; left out: the one before, without those left as bad.")
    ] = None,
    wait: Wait = True,
) -> None:
    """Go back to an earlier release that the node still has."""
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        found, version = earlier_release(home.state, target.id, release)
        finish(home, home.operations.rollback(target.id, found, version, actor()), wait=wait)


def _source(home: Home, source: str, kind: str | None) -> tuple[Literal["git", "upload"], str]:
    if kind not in {None, "git", "upload"}:
        raise Invalid(f"--type is {kind}, but a source is git or upload.")
    if kind == "git":
        return "git", source
    if Path(source).is_file():
        from reconciler.sources.resolving import uploads_of

        upload = asyncio.run(uploads_of(home.settings).receive(uuid4(), Path(source).stat().st_size, _read(source)))
        return "upload", upload.source_ref
    is_archive = source.startswith(("upload:", "s3://")) or source.endswith((".tar.gz", ".tgz", ".zip"))
    return ("upload" if kind == "upload" or is_archive else "git"), source


async def _read(path: str) -> AsyncIterator[bytes]:
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
