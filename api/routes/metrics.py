"""The contract's counters."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from api.auth import require_session
from api.dependencies import Deps
from api.views import Metrics
from reconciler.core.jobs import JobStatus
from reconciler.core.status import NodeStatus

router = APIRouter(prefix="/api/metrics", dependencies=[Depends(require_session)])


@router.get("")
def get_metrics(deps: Deps) -> Metrics:
    """Counters of this moment."""
    current, jobs = deps.state.current(), deps.records.jobs.counts()
    active = [node for node in current.fleet.nodes if current.node_status(node) is NodeStatus.ACTIVE]
    return Metrics(
        jobs_running=jobs[JobStatus.RUNNING],
        jobs_queued=jobs[JobStatus.QUEUED],
        nodes_active=len(active),
        sites_total=len(current.fleet.sites),
    )
