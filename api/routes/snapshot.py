"""What was last observed, for whoever plans elsewhere: an addition to the contract."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from api.auth import require_session
from api.dependencies import Deps
from reconciler.operations.sharing import snapshot_of
from reconciler.roles import current_roles

router = APIRouter(prefix="/api/snapshot", dependencies=[Depends(require_session)])


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Roles(_View):
    node: str
    environment: str


class Silence(_View):
    since: datetime
    reason: str


class SnapshotNode(_View):
    id: UUID
    checked_at: datetime
    observed: dict[str, Any] | None
    unreachable: Silence | None


class SnapshotContent(_View):
    environment_id: UUID
    content_id: UUID
    backup_id: UUID
    taken_at: datetime


class Snapshot(_View):
    format: Literal[1]
    trueup: str
    made_at: datetime
    revision: str
    roles: Roles
    nodes: list[SnapshotNode]
    failed: list[UUID]
    kept: list[SnapshotContent]


@router.get("")
def get_snapshot(deps: Deps) -> Snapshot:
    """The last observation of all nodes, without secrets."""
    found = snapshot_of(deps.state, current_roles(), deps.now())
    nodes = [
        SnapshotNode(
            id=node.id,
            checked_at=node.checked_at,
            observed=node.observed and node.observed.model_dump(mode="json", exclude_defaults=True),
            unreachable=node.unreachable and Silence(since=node.unreachable.since, reason=node.unreachable.reason),
        )
        for node in found.nodes
    ]
    return Snapshot(
        format=found.format,
        trueup=found.trueup,
        made_at=found.made_at,
        revision=found.revision,
        roles=Roles(node=found.roles.node, environment=found.roles.environment),
        nodes=nodes,
        failed=list(found.failed),
        kept=[SnapshotContent.model_validate(one.model_dump()) for one in found.kept],
    )
