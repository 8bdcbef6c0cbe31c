"""``trueup clone``, ``cache``, ``purge``, ``search-replace``, ``health``, ``reset``, ``login`` and
``history`` of one environment.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from pydantic import ValidationError

from reconciler.cli.context import actor, environment_named, node_named, opened, refusing
from reconciler.cli.jobs import finish
from reconciler.cli.output import Format, Output, say, show
from reconciler.core.errors import Invalid, NotFound
from reconciler.core.manifests import EnvironmentType, PromotionPreset
from reconciler.core.replacement import Replacement
from reconciler.core.visible import visible
from reconciler.home import clock
from reconciler.operations.history import history_of

Key = Annotated[str, typer.Argument(help="The environment, as SITE/ENVIRONMENT.")]
Wait = Annotated[bool, typer.Option(help="Wait until it is done.")]


def register(app: typer.Typer) -> None:
    for command in (clone, cache, purge, search_replace, health, reset, login, history):
        app.command()(command)


def clone(
    source: Annotated[str, typer.Argument(help="The environment that is copied, as SITE/ENVIRONMENT.")],
    slug: Annotated[str, typer.Argument(help="The copy's slug.")],
    name: Annotated[str | None, typer.Option(help="Shown to people; left out: the slug.")] = None,
    kind: Annotated[EnvironmentType, typer.Option("--type", help="What it is for.")] = EnvironmentType.STAGING,
    preset: Annotated[PromotionPreset | None, typer.Option(help="What a promotion from it leaves alone.")] = None,
    node: Annotated[str | None, typer.Option(help="Its node; left out: the source's.")] = None,
    wait: Wait = True,
) -> None:
    """Copy an environment: code, database and uploads, at an address of its own."""
    with opened() as home:
        fleet = home.state.fleet()
        copied = environment_named(fleet, source)
        with refusing():
            job_id = home.operations.create_environment(
                fleet.sites_by_slug[copied.site].id,
                name or slug,
                slug,
                kind,
                actor(),
                source_environment_id=copied.id,
                promotion_preset=preset,
                node=node_named(fleet, node).slug if node else None,
            )
        finish(home, job_id, wait=wait)


def cache(
    environment: Key,
    fastcgi: Annotated[bool | None, typer.Option("--fastcgi/--no-fastcgi", help="The page cache.")] = None,
    redis: Annotated[bool | None, typer.Option("--redis/--no-redis", help="The object cache.")] = None,
    wait: Wait = True,
) -> None:
    """Declare the page cache and the object cache on or off."""
    if fastcgi is None and redis is None:
        raise Invalid("Say what to change: --fastcgi or --no-fastcgi, --redis or --no-redis.")
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        finish(home, home.operations.set_cache(target.id, fastcgi, redis, actor()), wait=wait)


def search_replace(
    environment: Key,
    search: Annotated[str, typer.Argument(metavar="FROM", help="The text to look for, letter for letter.")],
    replace: Annotated[str, typer.Argument(metavar="TO", help="What stands in its place; may be empty.")],
    table: Annotated[list[str] | None, typer.Option(help="In this table alone; may be repeated.")] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="In these tables alone: content, comments, users, settings, commerce; may be repeated."),
    ] = None,
    guid: Annotated[bool, typer.Option("--guid", help="Also in the column guid.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Replace. Without it, only count.")] = False,
) -> None:
    """Say what replacing a text in the tables would change; with --apply, back up and replace it."""
    fields = {"search": search, "replace": replace, "tables": table or (), "groups": group or (), "guid": guid}
    try:
        wanted = Replacement.model_validate(fields)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise Invalid(f"{visible(str(wrong['input']), 80)} is no {wrong['loc'][0]}: {wrong['msg']}.") from error
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        job_id = home.operations.search_replace(target.id, wanted, actor(), dry_run=not apply)
        finish(home, job_id, wait=True)
        found = (home.records.jobs.get(job_id).result or {}).get("replaced") or {}
    rows = [{**one, "example": _example(one["examples"])} for one in found.get("tables", ())]
    show(rows, ("table", "count", "example"), Format.TABLE)
    for one in found.get("left", ()):
        where = f"{one['table']}.{one['column']}" if one["column"] else one["table"]
        say(f"{where}: {one['count']} stay, because {one['reason']}. {one['example']}".strip())
    if not apply and found.get("count"):
        say("Nothing was changed. The same with --apply replaces it, after a full backup.")


def _example(examples: list[dict[str, str]]) -> str:
    return f"{examples[0]['column']}: {examples[0]['before']} → {examples[0]['after']}" if examples else ""


def purge(environment: Key, wait: Wait = True) -> None:
    """Empty both caches of this environment alone."""
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        finish(home, home.operations.purge_cache(target.id, actor()), wait=wait)


def health(environment: Key) -> None:
    """Ask now whether it serves; exit code 1 when it is not healthy."""
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        job_id = home.operations.check_health(target.id, actor())
        finish(home, job_id, wait=True)
        found = home.records.jobs.get(job_id).result or {}
        say(f"{environment} is {found['health']}. {found['reason'] or ''}".strip())
        if found["health"] != "healthy":
            raise typer.Exit(1)


def reset(
    target: Annotated[str, typer.Argument(help="SITE/ENVIRONMENT, or SITE for all of it.")], wait: Wait = True
) -> None:
    """Make active again what failed and is found healthy."""
    with opened() as home:
        fleet = home.state.fleet()
        if "/" in target:
            job_id = home.operations.reset_environment(environment_named(fleet, target).id, actor())
        elif target in fleet.sites_by_slug:
            job_id = home.operations.reset_site(fleet.sites_by_slug[target].id, actor())
        else:
            raise NotFound(f"No site is named {target}. `trueup site list` shows them.")
        finish(home, job_id, wait=wait)


def login(environment: Key) -> None:
    """Print an address that logs a browser in as the administrator, once, within a minute."""
    from reconciler.nodes.connection import Connections
    from reconciler.operations.logins import MagicLogins

    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        connections = Connections()
        try:
            made = MagicLogins(home.settings, home.state, connections).create(target.id, actor(), clock())
        finally:
            connections.close()
        say(made.login_url)


def history(
    environment: Key,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 30,
    output: Output = Format.TABLE,
) -> None:
    """Show its commits, releases, jobs and backups as one line of time, newest first."""
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        moments = [asdict(one) for one in history_of(home.state, target, limit)]
    rows = [{**one, "at": one["at"].isoformat(timespec="seconds"), "jobs": list(one["jobs"])} for one in moments]
    if output is Format.TABLE:
        rows = [{**row, "id": row["id"][:9] if row["kind"] == "commit" else row["id"]} for row in rows]
    show(rows, ("at", "kind", "id", "what", "who", "outcome"), output)
