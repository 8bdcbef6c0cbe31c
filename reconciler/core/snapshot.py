"""What may leave the control plane of what was last observed: enough to plan from, field by field, and nothing else.

A node's manifest holds what was applied as a free mapping, whose values may be anybody's. So fields are listed here:
what no list names stays behind. What is left decides as the whole does: a plan from either has the same digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from reconciler.core.actions import KeptContent
from reconciler.core.changes import is_running, known_variables
from reconciler.core.fields import VERSION_PATTERN
from reconciler.core.fleet import Fleet
from reconciler.core.observed import (
    Applied,
    CertificateFailure,
    ObservedDomain,
    ObservedEnvironment,
    ObservedNode,
    Unreachable,
)
from reconciler.core.plan import Answer, Roles
from reconciler.core.variables import EnvironmentVariables, NodeVariables

_LONGEST = 300


class _Exported(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExportedRoles(_Exported):
    node: str
    environment: str


class ExportedNode(_Exported):
    """The last that one node said of itself, and since when it says nothing."""

    id: UUID
    checked_at: AwareDatetime
    observed: ObservedNode | None
    unreachable: Unreachable | None


class ExportedContent(_Exported):
    """The backup that has content which an environment had and left."""

    environment_id: UUID
    content_id: UUID
    backup_id: UUID
    taken_at: AwareDatetime


class FleetSnapshot(_Exported):
    """The last observation of the whole fleet, as ``trueup snapshot`` writes it."""

    format: Literal[1] = 1
    trueup: str
    """Version that wrote it."""
    made_at: AwareDatetime
    revision: str
    """The store's head at that time."""
    roles: ExportedRoles
    nodes: tuple[ExportedNode, ...]
    failed: tuple[UUID, ...] = ()
    """Environments whose last job failed: the loop leaves them until a person applies them."""
    kept: tuple[ExportedContent, ...] = ()

    def answers(self, fleet: Fleet) -> dict[str, Answer]:
        """By node name, for the nodes of ``fleet`` that were ever asked."""
        known = {node.id: node.unreachable or node.observed for node in self.nodes}
        found = {node.slug: known.get(node.id) for node in fleet.nodes.values()}
        return {name: answer for name, answer in found.items() if answer is not None}

    def placements(self, fleet: Fleet) -> dict[UUID, str]:
        """Where each environment was last seen, on nodes that do not answer now, too."""
        known = {node.id: node.observed for node in self.nodes}
        return {
            UUID(environment_id): node.slug
            for node in fleet.nodes.values()
            if (seen := known.get(node.id))
            for environment_id in seen.environments
        }

    def kept_content(self, environment_id: UUID, content_id: UUID) -> KeptContent | None:
        """The backup to which an environment goes back for this content."""
        wanted = environment_id, content_id
        found = (one for one in self.kept if (one.environment_id, one.content_id) == wanted)
        return next((KeptContent(one.backup_id, one.taken_at) for one in found), None)

    def as_roles(self) -> Roles:
        return Roles(node=self.roles.node, environment=self.roles.environment)


def shareable(seen: ObservedNode) -> ObservedNode:
    """What a plan needs of a node's answer; of files, links and services only those that are not as applied."""
    return ObservedNode(
        observed_at=seen.observed_at,
        hostname="",
        hold=None if seen.hold is None else seen.hold[:_LONGEST],
        pending=seen.pending,
        environments={id_: _environment(one) for id_, one in seen.environments.items()},
        unusable={told: reason[:_LONGEST] for told, reason in seen.unusable.items()},
        **_configuration(NodeVariables, seen),
    )


def _environment(seen: ObservedEnvironment) -> ObservedEnvironment:
    return ObservedEnvironment(
        pending=seen.pending,
        database=seen.database,
        wordpress_version=seen.wordpress_version,
        options=seen.options,
        domains={name: _domain(one) for name, one in seen.domains.items()},
        **_configuration(EnvironmentVariables, seen),
    )


def _domain(seen: ObservedDomain) -> ObservedDomain:
    failure = seen.failure
    told = failure and CertificateFailure(code=failure.code, message="", at=failure.at, count=failure.count)
    return ObservedDomain(served=seen.served, failure=told)


def _version(details: Mapping[str, Any]) -> dict[str, Any]:
    """Which WordPress a release stands on; where it came from may hold what nobody else is to know."""
    version = str(details.get("wordpress_version") or "")
    return {"wordpress_version": version} if re.fullmatch(VERSION_PATTERN, version) else {}


def _configuration(model: type[BaseModel], seen: ObservedNode | ObservedEnvironment) -> dict[str, Any]:
    applied = seen.applied
    if applied is None:
        return {"applied": None}
    files = {path: sha for path, sha in applied.files.items() if seen.files.get(path) != sha}
    links = {path: to for path, to in applied.links.items() if seen.links.get(path) != to}
    services = tuple(unit for unit in applied.services if not is_running(seen.services.get(unit)))
    return {
        "applied": Applied(
            format=1,
            variables=known_variables(model, applied.variables),
            digest=applied.digest,
            role_digest=applied.role_digest,
            files=files,
            links=links,
            services=services,
            applied_at=applied.applied_at,
            releases=applied.releases,
            release_details={id_: _version(applied.release_details.get(id_, {})) for id_ in applied.releases},
            contents=applied.contents,
            options=applied.options,
        ),
        "files": {path: seen.files.get(path) for path in files},
        "links": {path: seen.links.get(path) for path in links},
        "services": {unit: seen.services[unit] for unit in services if unit in seen.services},
    }
