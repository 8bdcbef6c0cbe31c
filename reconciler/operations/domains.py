"""An environment's declared domains, each with the certificate that its node was last seen to serve."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from reconciler.core.certificates import TlsStatus, ends_soon, tls_status
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.manifests import Domain
from reconciler.core.observed import ObservedDomain, ObservedEnvironment
from reconciler.state import CurrentState


@dataclass(frozen=True, slots=True)
class DeclaredDomain:
    """``updated_at``: when it was declared, or when its certificate last came to be or failed to."""

    id: UUID
    environment_id: UUID
    hostname: str
    tls_status: TlsStatus
    tls_issuer: str | None
    ends_at: datetime | None
    trouble: str | None
    """What a person should know of its certificate, if there is anything."""
    created_at: datetime
    updated_at: datetime


def domains_of(current: CurrentState, environment: EnvironmentEntry, now: datetime) -> list[DeclaredDomain]:
    """By hostname."""
    seen = _last_seen(current, environment)
    declared = sorted(environment.manifest.spec.domains, key=lambda domain: domain.hostname)
    return [
        _declared(current, environment, one, seen.domains.get(one.hostname) if seen else None, now) for one in declared
    ]


def _last_seen(current: CurrentState, environment: EnvironmentEntry) -> ObservedEnvironment | None:
    node = current.fleet.node_of(environment)
    observation = current.observations.get(node.id) if node else None
    answer = observation.observed if observation else None
    return answer.environments.get(str(environment.id)) if answer else None


def _declared(
    current: CurrentState, environment: EnvironmentEntry, domain: Domain, seen: ObservedDomain | None, now: datetime
) -> DeclaredDomain:
    served, failure = (seen.served, seen.failure) if seen else (None, None)
    since = current.named_since(environment.path, domain.hostname)
    moments = [moment for moment in (served and served.not_before, failure and failure.at) if moment]
    return DeclaredDomain(
        id=current.fleet.domain_id(environment, domain),
        environment_id=environment.id,
        hostname=domain.hostname,
        tls_status=tls_status(wanted=domain.tls, seen=seen, now=now),
        tls_issuer=served.issuer if served else None,
        ends_at=served.not_after if served else None,
        trouble=_trouble(seen, now) if domain.tls else None,
        created_at=since,
        updated_at=max([since, *moments]),
    )


def _trouble(seen: ObservedDomain | None, now: datetime) -> str | None:
    served, failure = (seen.served, seen.failure) if seen else (None, None)
    if served and ends_soon(served, now):
        word = "ended" if served.not_after <= now else "ends"
        return f"{word} {served.not_after:%Y-%m-%d %H:%M}. {failure.message if failure else ''}".strip()
    return failure.message if failure else None
