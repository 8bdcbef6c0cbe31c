"""Sites and their environments."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from api.auth import Who, require_session
from api.dependencies import Deps
from api.requests import CreateEnvironmentRequest, CreateSiteRequest, ImportRequest, no_body
from api.views import SITES, Environment, JobAccepted, Site, accepted, as_json, environment_view, site_view, site_views
from reconciler.sources import refuse_archive

router = APIRouter(prefix="/api/sites", dependencies=[Depends(require_session)])


@router.get("", response_model=list[Site])
def list_sites(deps: Deps) -> Response:
    """Every site, by slug."""
    return as_json(SITES, site_views(deps.state.current()))


@router.post("", status_code=202)
def create_site(body: CreateSiteRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare a site and its production environment; a job makes it."""
    return accepted(response, deps.operations.create_site(body.name, body.slug, who))


@router.get("/{id}")
def get_site(id: UUID, deps: Deps) -> Site:
    """One site."""
    current = deps.state.current()
    return site_view(current, current.fleet.site(id))


@router.delete("/{id}", status_code=202, dependencies=[Depends(no_body)])
def remove_site(
    id: UUID, who: Who, response: Response, deps: Deps, confirm: Annotated[str | None, Query()] = None
) -> JobAccepted:
    """A job that backs the site's environments up and then removes all of it; ``confirm`` is its slug."""
    return accepted(response, deps.operations.remove_site(id, confirm, who))


@router.post("/{id}/import", status_code=202)
def import_site(id: UUID, body: ImportRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare that the production environment holds what an archive has; a job fetches it."""
    fleet = deps.state.fleet()
    fleet.site(id)
    refuse_archive(body.archive_url, fleet)
    return accepted(response, deps.operations.import_site(id, body.archive_url, who))


@router.get("/{id}/environments")
def list_environments(id: UUID, deps: Deps) -> list[Environment]:
    """The site's environments, production first."""
    current = deps.state.current()
    environments = current.fleet.environments_by_site.get(current.fleet.site(id).slug, ())
    return [environment_view(current, environment) for environment in environments]


@router.post("/{id}/environments", status_code=202)
def create_environment(
    id: UUID, body: CreateEnvironmentRequest, who: Who, response: Response, deps: Deps
) -> JobAccepted:
    """Declare a copy of one of the site's environments; a job makes it."""
    node = deps.state.fleet().node(body.node_id).slug if body.node_id else None
    job_id = deps.operations.create_environment(
        id,
        body.name,
        body.slug,
        body.type,
        who,
        source_environment_id=body.source_environment_id,
        promotion_preset=body.promotion_preset,
        node=node,
    )
    return accepted(response, job_id)
