"""What is left to do when a job has ended: its environment's status, its declaration, and what it left on the node.

All of it may be done again at any time: by the worker that ended the job, by whoever cancelled it, and by a tick
after either of them was killed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import structlog

from reconciler.core.errors import Conflict, NotFound
from reconciler.core.intents import Edit, RemoveEnvironment, RemoveSite, evaluate
from reconciler.core.jobs import RETRIED, JobErrorCode, JobStatus, JobType
from reconciler.core.status import BUSY, EnvironmentStatus, summarize
from reconciler.operations.taking_back import MOVES, take_back
from reconciler.records.database import Collision
from reconciler.records.jobs import Job, NewJob, only_clears
from reconciler.state import State
from reconciler.store.importing import TRUEUP
from reconciler.store.repository import Snapshot

log = structlog.get_logger()

CREATIONS = frozenset({JobType.SITE_CREATE, JobType.ENVIRONMENT_CREATE})
REMOVALS = frozenset({JobType.ENVIRONMENT_REMOVE, JobType.SITE_REMOVE})
_CUT_OFF = frozenset(
    {
        JobErrorCode.JOB_TIMEOUT,
        JobErrorCode.ANSIBLE_TIMEOUT,
        JobErrorCode.JOB_LEASE_LOST,
        JobErrorCode.UPSTREAM_CONFLICT,
    }
)
_LEAVES_A_COPY = (
    RETRIED
    | _CUT_OFF
    | {
        JobErrorCode.ANSIBLE_UNKNOWN_EXIT,
        JobErrorCode.ANSIBLE_UNEXPECTED_ERROR,
        JobErrorCode.JOB_INTERNAL_ERROR,
    }
)
"""Failures after which a drill's copy may still be on the node: any but those that the drill itself told."""


def wind_up(job: Job, state: State, now: datetime) -> None:
    """Let everything follow from how the job ended; nothing, as long as it has not."""
    if _never_began(job):
        _undeclare(job, state, now)
        return
    mark(job, state, now)
    take_back(job, state)
    _put_right(job, state, now)


def mark(job: Job, state: State, now: datetime) -> None:
    """Let the environment's status follow the job's."""
    if job.environment_id is None:
        return
    row = state.records.statuses.get(job.environment_id)
    before = EnvironmentStatus(row.status) if row else EnvironmentStatus.ACTIVE
    job_type = JobType(job.job_type)
    reset = job_type is JobType.RECONCILE and is_deliberate(job)
    began = not _never_began(job)
    if job.finished_at and row and row.job_id != job.id and before in BUSY:
        return  # with a later one, which was accepted because this one had ended
    after = summarize(job_type, job.status, before, reset=reset, began=began)
    if after is not before:
        state.records.statuses.put(job.environment_id, after, now, job_id=job.id)


def is_deliberate(job: Job) -> bool:
    """Whether somebody asked for it, rather than the loop."""
    return bool((job.intent or {}).get("deliberate", job.declared))


def _never_began(job: Job) -> bool:
    overtaken = job.status is JobStatus.FAILED and job.error_code == JobErrorCode.UPSTREAM_CONFLICT
    return (overtaken or job.status is JobStatus.CANCELLED) and job.started_at is None


def _undeclare(job: Job, state: State, now: datetime) -> None:
    """A job that was cancelled in the queue has touched no node: Git says again what it said before."""
    if JobType(job.job_type) in CREATIONS:
        _withdraw(job, state, now)
        return
    # In this order: once the environment is active, the loop would bring what is still declared.
    take_back(job, state)
    mark(job, state, now)
    if JobType(job.job_type) is JobType.BACKUP:
        _fail_backup(job, state)


def _fail_backup(job: Job, state: State) -> None:
    backup = state.records.backups.get(UUID((job.intent or {})["backup_id"]))
    if backup.status == "pending":
        state.records.backups.save(replace(backup, status="failed"))


def _withdraw(job: Job, state: State, now: datetime) -> None:
    """Take the documents of what never came to be out of the store."""

    def edit(snapshot: Snapshot) -> Edit:
        fleet = state.fleet_of(snapshot.revision, snapshot.documents)
        found = evaluate(_removal(job, state), fleet, {}, now)
        return replace(
            found, message=f"{found.message}\n\nJob {job.id} ({job.job_type}) was cancelled before it began."
        )

    try:
        if job.revision and job.environment_id in state.fleet().environments:
            state.repository.commit(edit, TRUEUP)
    except (Conflict, NotFound) as error:
        log.warning("what was cancelled stays declared", job=str(job.id), error=error.message)
        mark(replace(job, started_at=job.created_at), state, now)
        return
    if job.environment_id is not None:
        state.records.statuses.forget(job.environment_id)


def _removal(job: Job, state: State) -> RemoveEnvironment | RemoveSite:
    if job.job_type == JobType.ENVIRONMENT_CREATE and job.environment_id:
        return RemoveEnvironment(environment_id=job.environment_id)
    assert job.site_id is not None  # noqa: S101 (a site-create has one)
    return RemoveSite(site_id=job.site_id, confirm=state.fleet().site(job.site_id).slug)


def _put_right(job: Job, state: State, now: datetime) -> None:
    """A job for what was stopped from outside, so that nothing half-made stays on the node."""
    follow_up = _clearing(job, state) if job.job_type == JobType.DRILL else _follow_up(job, state)
    if follow_up is None:
        return
    with suppress(NotFound):
        state.records.jobs.get(follow_up.id)
        return
    with suppress(Collision):  # somebody else winds it up at this moment
        state.records.jobs.enqueue(follow_up, now)
        log.info("putting right", job=str(job.id), by=str(follow_up.id), job_type=follow_up.job_type)


def _follow_up(job: Job, state: State) -> NewJob | None:
    job_type, cancelled = JobType(job.job_type), job.status is JobStatus.CANCELLED
    cut_off = cancelled or (job.status is JobStatus.FAILED and job.error_code in _CUT_OFF)
    if not cut_off:
        return None
    declared = job.environment_id in state.fleet().environments
    if job_type in CREATIONS and cancelled and declared and _is_last(job, state):
        removal = _removal(job, state)
        kind = JobType.SITE_REMOVE if isinstance(removal, RemoveSite) else JobType.ENVIRONMENT_REMOVE
        return _next(job, kind, {"removal": removal.model_dump(mode="json"), "unmade": str(job.id)})
    if job_type in MOVES and declared and _is_last(job, state):
        return _next(job, JobType.RECONCILE, {"deliberate": False, "after": str(job.id)})
    # What it had half exchanged goes back; the content that is declared waits for somebody's word again.
    if job_type is JobType.RECONCILE and declared and (job.intent or {}).get("confirmed"):
        back = _next(job, JobType.RECONCILE, {"deliberate": False, "after": str(job.id)})
        return replace(back, revision=job.revision)
    if job_type in REMOVALS and cancelled and (committed := removed_by(job, state)):
        return _next(job, job_type, {"removal": (job.intent or {})["removal"], "committed": committed})
    return None


def _clearing(job: Job, state: State) -> NewJob | None:
    """What takes the copy away that a drill left: a database and files with all that its customers' have."""
    # What the last attempt says of itself says nothing of an earlier one that was cut off.
    is_later = job.started_at is not None and job.locked_at != job.started_at
    failed = job.status is JobStatus.FAILED and (is_later or job.error_code in _LEAVES_A_COPY)
    ended = job.status is JobStatus.CANCELLED or failed
    # One that clears has had its attempts; what is still there goes with the next drill or run.
    if not ended or only_clears(job) or job.environment_id not in state.fleet().environments:
        return None
    return _next(job, JobType.DRILL, {"clear": True})


def removed_by(job: Job, state: State) -> str | None:
    """The commit with which a removal took its documents away; None: it has not come so far."""
    known: str | None = (job.intent or {}).get("committed")
    return known or state.repository.jobs_in_history([str(job.id)]).get(str(job.id))


def _is_last(job: Job, state: State) -> bool:
    """Whether nothing has happened to the environment since."""
    row = state.records.statuses.get(job.environment_id) if job.environment_id else None
    return row is not None and row.job_id == job.id


def _next(job: Job, job_type: JobType, details: dict[str, Any]) -> NewJob:
    return NewJob(
        id=uuid5(job.id, "aftermath"),
        job_type=job_type,
        site_id=job.site_id,
        environment_id=job.environment_id if job_type is not JobType.SITE_REMOVE else None,
        node_id=job.node_id if job_type is not JobType.SITE_REMOVE else None,
        locks=job.locks,
        intent={"operation": job_type.value, "actor": vars(TRUEUP), **details},
    )
