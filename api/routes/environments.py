"""One environment: what it is, its caches, its drift."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Response

from api.auth import Asking, require_session
from api.dependencies import Deps
from api.requests import (
    CacheRequest,
    DeployRequest,
    PromoteRequest,
    ReleaseRequest,
    RollbackRequest,
    SearchReplaceRequest,
    UpdateRequest,
    no_body,
    no_null,
)
from api.terms import IfNoneMatch, Who, tagged
from api.views import (
    AdoptionBranch,
    Environment,
    Held,
    JobAccepted,
    ListedHost,
    MagicLogin,
    Promotion,
    Released,
    accepted,
    environment_view,
    held_names,
    promotion_view,
)
from reconciler.core.observed import listed_hosts, reach, stopped
from reconciler.operations import proposing
from reconciler.operations.held import HeldEvents
from reconciler.operations.logins import MagicLogins
from reconciler.operations.promotion_preview import preview_of
from reconciler.operations.releases import earlier_release
from reconciler.sources.resolving import sources_of

router = APIRouter(prefix="/api/environments/{id}", dependencies=[Depends(require_session)])


@router.get("", response_model=Environment)
def get_environment(id: UUID, deps: Deps, if_none_match: IfNoneMatch = None) -> Response:
    """One environment."""
    current = deps.state.current()
    view = environment_view(current, current.fleet.environment(id))
    return tagged(view, view.state_version, if_none_match)


@router.post("/deploy", status_code=202)
def deploy(id: UUID, body: DeployRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare a release of this source at the commit that it is now; a job brings it."""
    fleet = deps.state.fleet()
    fleet.environment(id)
    revision = sources_of(deps.settings, fleet).resolve(body.source_type, body.source_ref)
    job_id = deps.operations.deploy(id, body.source_type, body.source_ref, who, revision=revision)
    return accepted(response, job_id)


@router.post("/rollback", status_code=202, dependencies=[Depends(no_null)])
def roll_back(id: UUID, who: Who, response: Response, deps: Deps, body: RollbackRequest | None = None) -> JobAccepted:
    """Declare an earlier release that the node still has; a job switches to it."""
    release, version = earlier_release(deps.state, id, body.release_id if body else None)
    return accepted(response, deps.operations.rollback(id, release, version, who))


@router.post("/updates", status_code=202)
def update(id: UUID, body: UpdateRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare an update of core, plugins or themes; a job rehearses it, backs up, and makes it."""
    return accepted(response, deps.operations.update(id, body.scope, who))


@router.delete("", status_code=202, dependencies=[Depends(no_body)])
def remove_environment(id: UUID, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """A job that backs the environment up and then removes all of it."""
    return accepted(response, deps.operations.remove_environment(id, who))


@router.patch("/cache", status_code=202)
def set_cache(id: UUID, body: CacheRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare the page cache and the object cache on or off; a job makes it so."""
    fastcgi, redis = body.given("fastcgi_cache_enabled"), body.given("redis_cache_enabled")
    return accepted(response, deps.operations.set_cache(id, fastcgi, redis, who))


@router.post("/health-check", status_code=202, dependencies=[Depends(no_body)])
def check_health(id: UUID, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """A job that asks whether this environment serves."""
    return accepted(response, deps.operations.check_health(id, who))


@router.post("/cache/purge", status_code=202, dependencies=[Depends(no_body)])
def purge_cache(id: UUID, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """A job that empties both caches of this environment."""
    return accepted(response, deps.operations.purge_cache(id, who))


@router.post("/promote", status_code=202)
def promote(id: UUID, body: PromoteRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare that the target has what changed in this environment; a job moves it."""
    target, include, exclude = body.target_environment_id, body.include, body.exclude
    return accepted(response, deps.operations.promote(id, target, who, include=include, exclude=exclude))


@router.get("/promotion")
def get_promotion(id: UUID, target: UUID, deps: Deps) -> Promotion:
    """What a promotion to the target would move and leave, as the last drift check of this environment found it."""
    return promotion_view(preview_of(id, target, deps.state, deps.now()))


@router.post("/search-replace", status_code=202)
def search_replace(id: UUID, body: SearchReplaceRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """A job that counts what replacing a text would change or, without ``dry_run``, declares and makes it."""
    job_id = deps.operations.search_replace(id, body.wanted, who, dry_run=body.dry_run)
    return accepted(response, job_id)


@router.post("/drift-check", status_code=202, dependencies=[Depends(no_body)])
def check_drift(id: UUID, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """A job that compares this environment with what Git says, files included."""
    return accepted(response, deps.operations.drift_check(id, who))


@router.post("/drift/adopt", status_code=202, dependencies=[Depends(no_body)])
def adopt_drift(id: UUID, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare this environment's code as it is on its node by now; a job makes a release of it."""
    return accepted(response, deps.operations.adopt(id, who))


@router.post("/drift/adopt/branch", status_code=201, dependencies=[Depends(no_body)])
def propose_adoption(id: UUID, who: Who, deps: Deps) -> AdoptionBranch:
    """Push a branch whose merge adopts; nothing is declared before."""
    made = proposing.propose_adoption(id, deps.state, deps.settings, who, deps.now())
    view = AdoptionBranch(
        branch=made.branch,
        base=made.base,
        commit=made.commit,
        release_id=made.release_id,
        request_url=made.url,
        note=made.note,
    )
    if who.terms.key:
        deps.records.idempotency.remember(who.terms.key, view.model_dump(mode="json"), deps.now())
    return view


@router.post("/drift/discard", status_code=202, dependencies=[Depends(no_body)])
def discard_drift(id: UUID, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare this environment's code as it was released; a job brings it back after a full backup."""
    return accepted(response, deps.operations.discard(id, who))


@router.get("/held")
def get_held(id: UUID, deps: Deps) -> Held:
    """What this copy was kept from doing, and what waits in it."""
    found = HeldEvents(deps.settings, deps.state, deps.connections).of(id)
    there = deps.state.current().seen(id)
    hosts = tuple(
        ListedHost(name=name, addresses=host.addresses, error=host.error) for name, host in listed_hosts(there).items()
    )
    return Held(egress=reach(there), hosts=hosts, stopped=stopped(there), held=held_names(found))


@router.post("/held/release")
def release_held(id: UUID, body: ReleaseRequest, who: Who, deps: Deps) -> Released:
    """Have what waits in this copy be done, all or by name."""
    held = HeldEvents(deps.settings, deps.state, deps.connections)
    view = Released(held=held_names(held.release(id, body.names or None, who, deps.now())))
    if who.terms.key:
        deps.records.idempotency.remember(who.terms.key, view.model_dump(mode="json"), deps.now())
    return view


@router.post("/magic-login", dependencies=[Depends(no_body)])
def log_in_by_magic(id: UUID, who: Asking, deps: Deps) -> MagicLogin:
    """A one-time administrator login, at once."""
    login = MagicLogins(deps.settings, deps.state, deps.connections).create(id, who, deps.now())
    return MagicLogin(login_url=login.login_url, expires_at=login.expires_at)


@router.post("/reset", status_code=202, dependencies=[Depends(no_body)])
def reset_environment(id: UUID, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """A job that makes this failed environment active again if it is healthy."""
    return accepted(response, deps.operations.reset_environment(id, who))
