"""Environments whose time is over are removed as if somebody had asked for it: with a backup, by a commit."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import structlog

from reconciler.core.errors import Conflict
from reconciler.core.jobs import JobStatus, JobType
from reconciler.operations.declaring import Actor
from reconciler.operations.requests import Operations
from reconciler.records.jobs import JobFilter
from reconciler.state import State

log = structlog.get_logger()

_AT_WORK = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})


def remove_expired(state: State, operations: Operations, actor: Actor, now: datetime) -> list[UUID]:
    """The jobs that remove what has expired; one that cannot go now is told, and stays until the next look."""
    jobs = []
    for environment in state.fleet().environments.values():
        ends = environment.manifest.spec.expires_at
        if ends is None or ends > now or environment.stalled or _is_going(environment.id, state):
            continue
        try:
            jobs.append(operations.remove_environment(environment.id, actor))
        except Conflict as error:
            log.warning("expired environment stays", environment=environment.key, reason=error.message)
    return jobs


def _is_going(environment_id: UUID, state: State) -> bool:
    wanted = JobFilter(
        statuses=_AT_WORK, job_types=frozenset({JobType.ENVIRONMENT_REMOVE}), environment_id=environment_id
    )
    return bool(state.records.jobs.page(wanted, 1).jobs)
