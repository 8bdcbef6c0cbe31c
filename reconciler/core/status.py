"""The only place that makes a status."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from reconciler.core.jobs import JobStatus, JobType
from reconciler.core.observed import ObservedNode, Unreachable


class EnvironmentStatus(StrEnum):
    """Of an environment, and of a site: that of its most affected environment."""

    ACTIVE = "active"
    CLONING = "cloning"
    DEPLOYING = "deploying"
    RESTORING = "restoring"
    FAILED = "failed"


class NodeStatus(StrEnum):
    ACTIVE = "active"
    PROVISIONING = "provisioning"
    UNREACHABLE = "unreachable"
    DECOMMISSIONED = "decommissioned"


class DriftStatus(StrEnum):
    UNKNOWN = "unknown"
    CLEAN = "clean"
    DRIFTED = "drifted"


_WHILE_RUNNING = {
    JobType.SITE_CREATE: EnvironmentStatus.DEPLOYING,
    JobType.ENVIRONMENT_CREATE: EnvironmentStatus.CLONING,
    JobType.DEPLOY: EnvironmentStatus.DEPLOYING,
    JobType.UPDATES: EnvironmentStatus.DEPLOYING,
    JobType.PROMOTE: EnvironmentStatus.DEPLOYING,
    JobType.DRIFT_ADOPT: EnvironmentStatus.DEPLOYING,
    JobType.DRIFT_DISCARD: EnvironmentStatus.DEPLOYING,
    JobType.SEARCH_REPLACE: EnvironmentStatus.DEPLOYING,
    JobType.RESTORE: EnvironmentStatus.RESTORING,
    JobType.SITE_IMPORT: EnvironmentStatus.RESTORING,
}

BUSY = frozenset(_WHILE_RUNNING.values())

_SEVERITY = (
    EnvironmentStatus.FAILED,
    EnvironmentStatus.RESTORING,
    EnvironmentStatus.DEPLOYING,
    EnvironmentStatus.CLONING,
    EnvironmentStatus.ACTIVE,
)


def summarize(
    job_type: JobType,
    job_status: JobStatus,
    before: EnvironmentStatus,
    *,
    reset: bool = False,
    began: bool = True,
) -> EnvironmentStatus:
    """The environment's status once a job of this type has this status.

    ``reset``: somebody asked to bring a failed environment back; a success, which includes the health check, does.
    ``began``: a worker has taken the job up. One that was cancelled before that has touched nothing.

    A job that doesn't move code or content leaves the status as it is. A retry waits in ``queued``: the
    environment stays busy until the job ends for good.
    """
    if reset and job_status is JobStatus.SUCCEEDED and before is EnvironmentStatus.FAILED:
        return EnvironmentStatus.ACTIVE
    busy = _WHILE_RUNNING.get(job_type)
    if busy is None:
        return before
    if job_status in {JobStatus.QUEUED, JobStatus.RUNNING}:
        return busy
    if job_status is JobStatus.SUCCEEDED or not began:
        return EnvironmentStatus.ACTIVE
    return EnvironmentStatus.FAILED


def site_status(environments: Iterable[EnvironmentStatus]) -> EnvironmentStatus:
    """The status of the most affected environment; a site without any is active."""
    return min(environments, key=_SEVERITY.index, default=EnvironmentStatus.ACTIVE)


def node_status(state: str, observed: ObservedNode | Unreachable | None, *, provisioning: bool = False) -> NodeStatus:
    """From what the document says and what the last observation found."""
    if state == "decommissioned":
        return NodeStatus.DECOMMISSIONED
    if isinstance(observed, Unreachable):
        return NodeStatus.UNREACHABLE
    if observed is None or observed.applied is None or provisioning:
        return NodeStatus.PROVISIONING
    return NodeStatus.ACTIVE
