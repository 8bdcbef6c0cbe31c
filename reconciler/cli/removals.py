"""``trueup remove``: take an environment, or a whole site, away."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.context import actor, environment_named, opened
from reconciler.cli.jobs import finish
from reconciler.core.errors import NotFound


def register(app: typer.Typer) -> None:
    app.command()(remove)


def remove(
    target: Annotated[str, typer.Argument(help="SITE/ENVIRONMENT, or SITE with all its environments.")],
    confirm: Annotated[
        str | None, typer.Option(help="The site's slug, again: needed to remove a site, or what was its production.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is done.")] = True,
) -> None:
    """Back an environment or a site up, and remove it; also what has no document any more and is still there."""
    with opened() as home:
        fleet = home.state.fleet()
        if "/" in target and target not in fleet.environments_by_key:
            job_id = home.operations.remove_undeclared(target, confirm, actor())
        elif "/" in target:
            job_id = home.operations.remove_environment(environment_named(fleet, target).id, actor())
        elif site := fleet.sites_by_slug.get(target):
            job_id = home.operations.remove_site(site.id, confirm, actor())
        else:
            raise NotFound(f"No site has the slug {target}. See `trueup site list`.")
        finish(home, job_id, wait=wait)
