"""Make a failed environment active again: only once it has been asked, and is healthy."""

from __future__ import annotations

from uuid import UUID

from reconciler.core.jobs import JobErrorCode, JobStatus, JobType
from reconciler.core.observed import ObservedHealth
from reconciler.core.status import EnvironmentStatus, summarize
from reconciler.loop.reconcile import check_health
from reconciler.loop.tools import Run, Tools
from reconciler.records.jobs import Job
from reconciler.records.outcomes import Failed, Outcome, Stopped, Succeeded


def reset(job: Job, tools: Tools, run: Run) -> Outcome:
    """Ask each environment that the job names and that is still failed; those that are healthy become active.

    Fails where one of them isn't, which stays failed.
    """
    ids = [UUID(id_) for id_ in (job.intent or {})["reset"]]
    outcomes = {id_: _reset(id_, job, tools, run) for id_ in ids if _is_failed(id_, tools)}
    for outcome in outcomes.values():
        if isinstance(outcome, Failed | Stopped):
            return outcome
    return Succeeded({"reset": [str(id_) for id_ in outcomes]})


def _is_failed(environment_id: UUID, tools: Tools) -> bool:
    row = tools.state.records.statuses.get(environment_id)
    return row is not None and EnvironmentStatus(row.status) is EnvironmentStatus.FAILED


def _reset(environment_id: UUID, job: Job, tools: Tools, run: Run) -> Outcome:
    outcome = check_health(environment_id, tools, run)
    if not isinstance(outcome, Succeeded):
        return outcome
    found = ObservedHealth.model_validate(outcome.result)
    if found.health != "healthy":
        name = tools.state.fleet().environment(environment_id).key
        why = f"{name} is {found.health}, so it stays failed: {found.reason or 'it gave no reason'}"
        return Failed(JobErrorCode.ENVIRONMENT_UNHEALTHY, f"{why} Put it right, then reset it again.")
    after = summarize(JobType.HEALTH_CHECK, JobStatus.SUCCEEDED, EnvironmentStatus.FAILED, reset=True)
    tools.state.records.statuses.put(environment_id, after, tools.clock(), job_id=job.id)
    return outcome
