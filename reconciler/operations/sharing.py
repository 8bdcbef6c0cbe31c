"""The snapshot of the last observation that others may plan from, without a way to any node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from uuid import UUID

from reconciler import __version__
from reconciler.core.plan import Roles
from reconciler.core.snapshot import ExportedContent, ExportedNode, ExportedRoles, FleetSnapshot, shareable
from reconciler.core.status import EnvironmentStatus
from reconciler.operations.confirming import kept_content
from reconciler.records.observations import Observation
from reconciler.state import State


def snapshot_of(state: State, roles: Roles, now: datetime) -> FleetSnapshot:
    """What was last observed of every declared node. No node is asked."""
    fleet, seen = state.fleet(), state.records.observations.all()
    nodes = sorted(fleet.nodes.values(), key=lambda node: node.slug)
    statuses = state.records.statuses.all()
    return FleetSnapshot(
        trueup=__version__,
        made_at=now,
        revision=fleet.revision,
        roles=ExportedRoles(node=roles.node, environment=roles.environment),
        nodes=tuple(_exported(seen[node.id]) for node in nodes if node.id in seen),
        kept=tuple(_kept(state, seen)),
        failed=tuple(id_ for id_ in sorted(statuses) if statuses[id_].status == EnvironmentStatus.FAILED),
    )


def _kept(state: State, seen: Mapping[UUID, Observation]) -> Iterator[ExportedContent]:
    """What each environment could go back to, out of a backup."""
    for observation in seen.values():
        for environment_id, there in (observation.observed.environments if observation.observed else {}).items():
            for content_id in there.applied.contents[:-1] if there.applied else ():
                id_, content = UUID(environment_id), UUID(content_id)
                if found := kept_content(state, id_, content):
                    yield ExportedContent(
                        environment_id=id_, content_id=content, backup_id=found.backup_id, taken_at=found.taken_at
                    )


def _exported(seen: Observation) -> ExportedNode:
    return ExportedNode(
        id=seen.node_id,
        checked_at=seen.checked_at,
        observed=seen.observed and shareable(seen.observed),
        unreachable=seen.unreachable,
    )
