"""``trueup site``: make sites and see them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reconciler.cli.context import actor, opened, refusing
from reconciler.cli.jobs import finish
from reconciler.cli.output import Format, Output, show
from reconciler.core.errors import NotFound
from reconciler.home import Home

app = typer.Typer(help="WordPress sites.", no_args_is_help=True)


@app.command("list")
def list_sites(output: Output = Format.TABLE) -> None:
    """Every site with its production address."""
    with opened() as home:
        show(rows(home), ("slug", "name", "status", "environments", "url"), output)


def rows(home: Home) -> list[dict[str, Any]]:
    current = home.state.current()
    found = []
    for site in sorted(current.fleet.sites.values(), key=lambda site: site.slug):
        environments = current.fleet.environments_by_site.get(site.slug, ())
        found.append(
            {
                "id": site.id,
                "slug": site.slug,
                "name": site.name,
                "status": current.site_status(site.slug).value,
                "environments": len(environments),
                "url": current.fleet.preview_url(environments[0]) if environments else None,
            }
        )
    return found


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="The site's slug, in paths and on the command line.")],
    name: Annotated[str | None, typer.Option(help="Its title; left out: the slug.")] = None,
    node: Annotated[str | None, typer.Option(help="Its node; left out: the one with the fewest environments.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it answers.")] = True,
) -> None:
    """Make a site and its production environment."""
    with opened() as home:
        with refusing():
            job_id = home.operations.create_site(name or slug, slug, actor(), node)
        finish(home, job_id, wait=wait)


@app.command("import")
def import_site(
    slug: Annotated[str, typer.Argument(help="The site's slug.")],
    archive_url: Annotated[str, typer.Argument(help="Where the .tar.gz with db.sql and files/ is, http or https.")],
    wait: Annotated[bool, typer.Option(help="Wait until it is done.")] = True,
) -> None:
    """Replace a site's production environment by an export of another one. A backup is taken first."""
    from reconciler.sources.resolving import refuse_archive

    with opened() as home:
        fleet = home.state.fleet()
        site = fleet.sites_by_slug.get(slug)
        if site is None:
            raise NotFound(f"There is no site {slug}. See `trueup site list`.")
        refuse_archive(archive_url, fleet)
        finish(home, home.operations.import_site(site.id, archive_url, actor()), wait=wait)
