"""Domains: added behind the others, and removed. The first is the primary one."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, NotFound
from reconciler.core.fields import Hostname
from reconciler.core.fleet import Fleet
from reconciler.core.intents.edits import BaseIntent, Edit, Statuses, refuse_failed, refuse_untouchable


class AddDomain(BaseIntent):
    operation: Literal["add_domain"] = "add_domain"
    environment_id: UUID
    domain_id: UUID
    hostname: Hostname


class RemoveDomain(BaseIntent):
    operation: Literal["remove_domain"] = "remove_domain"
    domain_id: UUID


def add_domain(intent: AddDomain, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_untouchable(environment, now)
    refuse_failed(environment, statuses)
    written = _written(environment, fleet)
    for other, domain in fleet.domains.values():
        if domain.hostname == intent.hostname and other.id != environment.id:
            raise Conflict(f"{intent.hostname} belongs to {other.key}. Remove it there first.")
    for other in fleet.environments.values():
        if fleet.preview_url(other).partition("://")[2] == intent.hostname:
            raise Conflict(f"{intent.hostname} is the preview address of {other.key}. Choose another name.")
    # Asked for again, it is tried again: what failed then may be mended by now.
    if intent.hostname not in [one["hostname"] for one in written]:
        written.append({"id": str(intent.domain_id), "hostname": intent.hostname})
    return Edit(
        message=f"Add domain {intent.hostname} to {environment.key}",
        assign={environment.path: {("spec", "domains"): written}},
    )


def remove_domain(intent: RemoveDomain, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    if intent.domain_id not in fleet.domains:
        raise NotFound(f"No domain has the id {intent.domain_id}. List them to see which there are.")
    environment, domain = fleet.domains[intent.domain_id]
    refuse_untouchable(environment, now)
    refuse_failed(environment, statuses)
    left = [one for one in _written(environment, fleet) if one["id"] != str(intent.domain_id)]
    return Edit(
        message=f"Remove domain {domain.hostname} from {environment.key}",
        assign={environment.path: {("spec", "domains"): left}},
    )


def _written(environment: EnvironmentEntry, fleet: Fleet) -> list[dict[str, Any]]:
    return [
        {"id": str(fleet.domain_id(environment, domain)), "hostname": domain.hostname}
        | ({} if domain.tls else {"tls": False})
        for domain in environment.manifest.spec.domains
    ]
