"""What the records and the store's history know beyond a plan; read only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode, JobStatus, JobType
from reconciler.core.observed import ObservedNode
from reconciler.core.plan import Answer, Plan
from reconciler.records.health import ReleaseHealth
from reconciler.records.jobs import Job, JobFilter
from reconciler.state import Records, State

RECONCILING = frozenset(JobType) - {
    JobType.NODE_OBSERVE,
    JobType.DRIFT_CHECK,
    JobType.CACHE_PURGE,
    JobType.BACKUP,
    JobType.DRILL,
    JobType.HEALTH_CHECK,
    JobType.SEARCH,
    JobType.DRIFT_REPORT,
    JobType.REPORT_DELIVERY,
    JobType.OPERATOR_RUN,
}
"""Jobs that bring an environment to what its document says, on their way or for itself."""

_UNHEALTHY = frozenset(
    {JobErrorCode.RELEASE_UNHEALTHY, JobErrorCode.UPDATE_UNHEALTHY, JobErrorCode.ENVIRONMENT_UNHEALTHY}
)


class Circumstances:
    """Of one decision about ``fleet``.

    Args:
        answers: what every node answered last.
        decide: the plan of such answers, with nothing held back.
    """

    def __init__(
        self,
        state: State,
        fleet: Fleet,
        answers: Callable[[], Mapping[str, Answer]],
        decide: Callable[[Mapping[str, Answer]], Plan],
    ) -> None:
        self._state = state
        self._fleet = fleet
        self._read_answers = answers
        self._decide = decide

    def whole(self) -> Plan:
        return self._whole

    def answer(self, node: str) -> Answer | None:
        return self._answers.get(node)

    def last_commit(self, path: str) -> str | None:
        history = self._state.repository.history(self._fleet.revision).get(path)
        return history.last if history else None

    def applied_at(self, environment: EnvironmentEntry) -> datetime | None:
        answer = self._answers.get(environment.manifest.spec.node)
        seen = answer.environments.get(str(environment.id)) if isinstance(answer, ObservedNode) else None
        return seen.applied.applied_at if seen and seen.applied else None

    def checked(self, environment: EnvironmentEntry) -> ReleaseHealth | None:
        return self._state.records.health.of(environment.id).get(self._fleet.release_id(environment))

    def unhealthy(self, environment_id: UUID, digest: str) -> str | None:
        if environment_id not in self._suspects:
            return None
        last = latest(self._state.records, JobFilter(environment_id=environment_id, job_types=RECONCILING))
        if last is None or last.status is not JobStatus.FAILED or last.error_code not in _UNHEALTHY:
            return None
        same = (last.result or {}).get("digest") == digest
        return last.error_message or last.error_code if same else None

    @cached_property
    def _suspects(self) -> frozenset[UUID]:
        """Environments that had such a failure at all."""
        failed = JobFilter(statuses=frozenset({JobStatus.FAILED}), job_types=RECONCILING, error_codes=_UNHEALTHY)
        jobs = self._state.records.jobs.page(failed, limit=1000).jobs
        return frozenset(job.environment_id for job in jobs if job.environment_id)

    @cached_property
    def _answers(self) -> Mapping[str, Answer]:
        return self._read_answers()

    @cached_property
    def _whole(self) -> Plan:
        return self._decide(self._answers)


def latest(records: Records, wanted: JobFilter) -> Job | None:
    """The job of these that was made last."""
    return next(iter(records.jobs.page(wanted, limit=1).jobs), None)
