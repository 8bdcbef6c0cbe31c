"""An environment's own hostnames, with their certificates."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Response

from api.auth import require_session
from api.dependencies import Deps
from api.pages import Asked
from api.requests import DomainRequest, no_body
from api.terms import Once, Who
from api.views import Domain, JobAccepted, accepted, domain_view
from reconciler.operations.domains import domains_of

router = APIRouter(prefix="/api", dependencies=[Depends(require_session)])


@router.get("/environments/{id}/domains")
def list_domains(id: UUID, deps: Deps, part: Asked, response: Response) -> list[Domain]:
    """The environment's domains, by hostname."""
    current = deps.state.current()
    found = domains_of(current, current.fleet.environment(id), deps.now())
    domains, cursor = part.of(found, lambda domain: (domain.hostname,))
    part.link(response, cursor)
    return [domain_view(domain) for domain in domains]


@router.post("/environments/{id}/domains", status_code=202)
def add_domain(id: UUID, body: DomainRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare a domain; a job gets its certificate. Asked for again, it is tried again."""
    return accepted(response, deps.operations.add_domain(id, body.hostname, who))


@router.delete("/domains/{id}", status_code=202, dependencies=[Depends(no_body)])
def remove_domain(id: UUID, who: Once, response: Response, deps: Deps) -> JobAccepted:
    """Declare that a domain is served no more; a job removes its certificate."""
    return accepted(response, deps.operations.remove_domain(id, who))
