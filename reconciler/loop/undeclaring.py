"""What a commit took out of the store and confirms to go is taken off its node, as if somebody had asked for it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import structlog

from reconciler.core.errors import Conflict, NotFound, TrueupError
from reconciler.core.jobs import JobStatus, JobType
from reconciler.core.plan import Orphan
from reconciler.loop.healing import PATIENCE
from reconciler.operations.declaring import Actor
from reconciler.operations.requests import Operations
from reconciler.operations.undeclared import Undeclared, undeclared
from reconciler.records.jobs import OPEN, JobFilter
from reconciler.state import State

log = structlog.get_logger()


def remove_confirmed(
    orphans: Iterable[Orphan], state: State, operations: Operations, actor: Actor, now: datetime
) -> list[UUID]:
    """The jobs that remove those of ``orphans`` whose going is confirmed; one that cannot go now is told."""
    jobs = []
    for orphan in orphans:
        found = _confirmed(orphan, state)
        if found is None or not _is_due(found, state, now):
            continue
        try:
            jobs.append(operations.remove_undeclared(found.environment.key, found.environment.site, actor))
        except TrueupError as error:
            log.warning("undeclared environment stays", environment=orphan.key, reason=error.message)
    return jobs


def _confirmed(orphan: Orphan, state: State) -> Undeclared | None:
    if orphan.key is None:
        return None
    try:
        found = undeclared(state, orphan.key)
    except (NotFound, Conflict):
        return None
    return found if found.confirmed and str(found.environment.id) == orphan.environment_id else None


def _is_due(found: Undeclared, state: State, now: datetime) -> bool:
    """Not while a job does it, nor right after one could not."""
    wanted = JobFilter(job_types=frozenset({JobType.ENVIRONMENT_REMOVE}), environment_id=found.environment.id)
    last = next(iter(state.records.jobs.page(wanted, 1).jobs), None)
    if last is None or last.status is JobStatus.SUCCEEDED:
        return True
    return last.status not in OPEN and (last.finished_at is None or last.finished_at + PATIENCE < now)
