"""What the loop does about a plan: it inserts a job for each step that may be applied, and touches nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from reconciler.core.actions import ProvisionNode, ReturnContent
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import CERTIFYING, JobErrorCode, JobStatus, JobType
from reconciler.core.plan import Plan, Step
from reconciler.core.status import EnvironmentStatus
from reconciler.loop.circumstances import RECONCILING, latest
from reconciler.operations.declaring import node_target, target_of
from reconciler.records.audit import Entry
from reconciler.records.jobs import OPEN, Job, JobFilter, NewJob
from reconciler.state import Records

PATIENCE = timedelta(minutes=30)
"""How long the loop waits after a reconcile of a target failed for good or was cancelled, unless desired state moved
meanwhile."""


@dataclass(frozen=True)
class Enqueued:
    """``jobs``: the ids of the new ones. ``waiting``: a target has an open job that may not have seen this plan.
    ``outdated``: the ids of nodes whose look may have met a job at work that has ended since.
    """

    jobs: tuple[UUID, ...]
    waiting: bool
    outdated: frozenset[UUID]


class Healing:
    def __init__(self, records: Records, clock: Callable[[], datetime], new_id: Callable[[], UUID]) -> None:
        self._records = records
        self._clock = clock
        self._new_id = new_id

    def enqueue(self, plan: Plan, fleet: Fleet, looked_at: Mapping[UUID, datetime]) -> Enqueued:
        """Insert a job for each step to apply that nobody works on already.

        ``looked_at``: by node, when the look began that the plan is of.
        """
        statuses = self._records.statuses.all() if plan.to_apply else {}
        failed = {id_ for id_, row in statuses.items() if row.status == EnvironmentStatus.FAILED}
        jobs = [self._job(step, fleet) for step in plan.to_apply if _environment_id(step) not in failed]
        others = {job.id: self._other(job) for job in jobs}
        outdated = {
            job.id for job in jobs if job.node_id and self._ended_since(others[job.id], looked_at.get(job.node_id))
        }
        wanted = [job for job in jobs if job.id not in outdated and self._is_wanted(job, others[job.id])]
        enqueued = self._records.jobs.enqueue_all(wanted, self._clock()) if wanted else []
        for job in enqueued:
            self._audit(job)
        waiting = any(other is not None and other.status in OPEN for other in others.values())
        nodes = frozenset(job.node_id for job in jobs if job.id in outdated and job.node_id)
        return Enqueued(tuple(job.id for job in enqueued), waiting, nodes)

    def _audit(self, job: Job) -> None:
        entry = Entry(
            who="trueup",
            source="",
            operation=job.job_type,
            outcome="accepted",
            site_id=job.site_id,
            environment_id=job.environment_id,
            node_id=job.node_id,
            job_id=job.id,
            summary=job.intent or {},
        )
        self._records.audit.append(entry, self._clock())

    def _job(self, step: Step, fleet: Fleet) -> NewJob:
        environment_id = _environment_id(step)
        if environment_id is None:
            job_type, target = JobType.NODE_PROVISION, node_target(fleet, step.action.node_id)
        else:
            job_type, target = JobType.RECONCILE, target_of(fleet, environment_id)
        return NewJob(
            id=self._new_id(),
            job_type=job_type,
            site_id=target.site_id,
            environment_id=target.environment_id,
            node_id=target.node_id,
            locks=target.locks,
            intent={
                "operation": job_type.value,
                "deliberate": False,
                "changes": [change.field for change in step.changes if change.held is None],
                **({"confirmed": step.action.variables.content.id} if isinstance(step.action, ReturnContent) else {}),
            },
            revision=fleet.revision,
            dedupe_key=f"heal:{environment_id or step.action.node_id}",
        )

    def _other(self, job: NewJob) -> Job | None:
        """The latest job that reconciles the same target."""
        types = frozenset({JobType.NODE_PROVISION}) if job.environment_id is None else RECONCILING
        same = JobFilter(environment_id=job.environment_id, node_id=job.node_id, job_types=types)
        return latest(self._records, same)

    def _is_wanted(self, job: NewJob, other: Job | None) -> bool:
        """Not while a job that will reconcile the target anyway is open, nor right after one failed for good."""
        if other is None:
            return True
        if other.status in OPEN:
            return False
        if _failed_at_this(other, job):
            return other.finished_at is None or other.finished_at + PATIENCE < self._clock()
        return True

    def _ended_since(self, other: Job | None, looked_at: datetime | None) -> bool:
        """Whether the look may have met the job at work: what it saw then was unfinished, and the next look tells.

        An end in the future is of a clock that went back, and says nothing.
        """
        if looked_at is None or other is None or other.status in OPEN or other.finished_at is None:
            return False
        return looked_at < other.finished_at <= self._clock()


def _failed_at_this(other: Job, job: NewJob) -> bool:
    """Whether trying again would most likely fail again: same desired state, and no cause that the plan tells of."""
    if other.error_code in _SAID_BY_THE_PLAN:
        return False
    ended_badly = other.status in {JobStatus.FAILED, JobStatus.CANCELLED}
    return ended_badly and other.revision == job.revision


_SAID_BY_THE_PLAN = frozenset({JobErrorCode.NODE_ON_HOLD, *CERTIFYING})
"""A hold that is gone by now, and names without a certificate: when one is asked for again, the plan knows."""


def _environment_id(step: Step) -> UUID | None:
    return None if isinstance(step.action, ProvisionNode) else step.action.environment_id
