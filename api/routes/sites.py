"""Sites and their environments."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from api.auth import require_session
from api.dependencies import Deps
from api.pages import Asked
from api.requests import CreateEnvironmentRequest, CreateSiteRequest, ImportRequest, no_body
from api.terms import IfNoneMatch, Once, Who, tagged
from api.views import SITES, Environment, JobAccepted, Site, accepted, as_json, environment_view, site_view, site_views
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.manifests import EnvironmentType
from reconciler.sources.resolving import refuse_archive

router = APIRouter(prefix="/api/sites", dependencies=[Depends(require_session)])


@router.get("", response_model=list[Site])
def list_sites(deps: Deps, part: Asked) -> Response:
    """Every site, by slug."""
    current = deps.state.current()
    sites, cursor = part.of(current.fleet.sites.values(), lambda site: (site.slug,))
    response = as_json(SITES, site_views(current, sites))
    part.link(response, cursor)
    return response


@router.post("", status_code=202)
def create_site(body: CreateSiteRequest, who: Once, response: Response, deps: Deps) -> JobAccepted:
    """Declare a site and its production environment; a job makes it."""
    return accepted(response, deps.operations.create_site(body.name, body.slug, who))


@router.get("/{id}", response_model=Site)
def get_site(id: UUID, deps: Deps, if_none_match: IfNoneMatch = None) -> Response:
    """One site."""
    current = deps.state.current()
    view = site_view(current, current.fleet.site(id))
    return tagged(view, view.state_version, if_none_match)


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
def list_environments(id: UUID, deps: Deps, part: Asked, response: Response) -> list[Environment]:
    """The site's environments, production first."""
    current = deps.state.current()
    declared = current.fleet.environments_by_site.get(current.fleet.site(id).slug, ())
    environments, cursor = part.of(declared, _production_first)
    part.link(response, cursor)
    return [environment_view(current, environment) for environment in environments]


def _production_first(environment: EnvironmentEntry) -> tuple[str, ...]:
    is_production = environment.manifest.spec.type is EnvironmentType.PRODUCTION
    return "0" if is_production else "1", environment.slug


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


@router.post("/{id}/reset", status_code=202, dependencies=[Depends(no_body)])
def reset_site(id: UUID, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """A job that makes those of the site's failed environments active again that are healthy."""
    return accepted(response, deps.operations.reset_site(id, who))
