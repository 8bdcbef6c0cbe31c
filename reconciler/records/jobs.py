"""The job store as its callers see it: take work in, match it with Git, look at it, cancel it, forget it.

The row comes first, then the commit that declares it: a declared job waits until ``mark_committed`` names its
revision. What workers do with jobs is in ``queue``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, Select, delete, func, insert, select, tuple_, update

from reconciler.core.errors import Conflict, Invalid, NotFound
from reconciler.core.jobs import MAX_ATTEMPTS, JobStatus, JobType
from reconciler.records import idempotency
from reconciler.records.database import reading, write
from reconciler.records.events import EventKind, note
from reconciler.records.locks import Lock
from reconciler.records.outcomes import shortened
from reconciler.records.tables import jobs

FINISHED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
OPEN = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """Work to take in. ``declared``: it may not run before a commit declares it."""

    id: UUID
    job_type: str
    locks: tuple[Lock, ...] = ()
    site_id: UUID | None = None
    environment_id: UUID | None = None
    node_id: UUID | None = None
    intent: dict[str, Any] | None = None
    """Operation and arguments, enough to make the commit again after a crash between row and commit."""
    declared: bool = False
    revision: str | None = None
    dedupe_key: str | None = None
    """While a job with this key is queued, another one is not taken in: the queued one stands for both."""
    ephemeral: bool = False
    """Of no interest once it succeeded or was cancelled: the row goes. Of failed ones with the same ``dedupe_key``
    the last stays, until one succeeds."""
    max_attempts: int = MAX_ATTEMPTS
    run_after: datetime | None = None
    key: idempotency.Key | None = None
    """The client's key; stored together with the job, or neither is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is stored."""

    id: UUID
    job_type: str
    status: JobStatus
    site_id: UUID | None
    environment_id: UUID | None
    node_id: UUID | None
    attempt_count: int
    max_attempts: int
    run_after: datetime
    locked_at: datetime | None
    locked_by: str | None
    started_at: datetime | None
    """When the first attempt began."""
    finished_at: datetime | None
    error_code: str | None
    """Why the last attempt failed; also while the job waits for the next one."""
    error_message: str | None
    created_at: datetime
    updated_at: datetime
    intent: dict[str, Any] | None
    declared: bool
    revision: str | None
    fence: int | None
    lease_until: datetime | None
    heartbeat_at: datetime | None
    cancel_requested: bool
    locks: tuple[Lock, ...]
    dedupe_key: str | None
    ephemeral: bool
    result: dict[str, Any] | None


_PLAIN = tuple(field.name for field in fields(Job) if field.name not in {"status", "locks"})


def job_from(row: Row[Any]) -> Job:
    """The job in a row of ``jobs``."""
    values = {name: getattr(row, name) for name in _PLAIN}
    return Job(status=JobStatus(row.status), locks=locks_from(row.locks), **values)


def locks_from(stored: Sequence[Sequence[Any]]) -> tuple[Lock, ...]:
    """The locks in the column of that name."""
    return tuple(Lock(resource, capacity) for resource, capacity in stored)


def operator_of(job: Job) -> str | None:
    """Who ran the playbook by hand that the job stands for; None: it is no operator's run."""
    if job.job_type != JobType.OPERATOR_RUN:
        return None
    return str((job.intent or {}).get("actor", {}).get("name"))


def only_clears(job: Job | Row[Any]) -> bool:
    """Whether it is the job that follows a drill that was stopped, and takes away what that left."""
    return job.job_type == JobType.DRILL and bool((job.intent or {}).get("clear"))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to look at; every field that is given must hold."""

    statuses: frozenset[JobStatus] | None = None
    job_types: frozenset[str] | None = None
    error_codes: frozenset[str] | None = None
    site_id: UUID | None = None
    environment_id: UUID | None = None
    node_id: UUID | None = None
    dedupe_key: str | None = None
    ephemeral: bool | None = None
    created_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    jobs: tuple[Job, ...]
    next_cursor: str | None
    """What to ask for the jobs after these; None: these are the last."""


class Jobs:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def enqueue(self, new: NewJob, now: datetime) -> Job:
        """Take a job in. The answer has another id than ``new`` when a queued job with its dedupe key stands for it."""
        return self.enqueue_all([new], now)[0]

    def enqueue_all(self, new: Sequence[NewJob], now: datetime) -> list[Job]:
        """Take several jobs in with one commit, or none of them."""
        return write(self._engine, lambda connection: [_enqueue(connection, job, now) for job in new])

    def mark_committed(self, job_id: UUID, revision: str, now: datetime) -> None:
        """The commit ``revision`` declares the job: it may run. Saying so twice is fine; another revision is not."""
        self.mark_all_committed({job_id: revision}, now)

    def mark_all_committed(self, revisions: Mapping[UUID, str], now: datetime) -> None:
        """``mark_committed`` for several jobs with one commit of the database."""

        def work(connection: Connection) -> None:
            for job_id, revision in revisions.items():
                _mark_committed(connection, job_id, revision, now)

        write(self._engine, work)

    def uncommitted(self) -> list[Job]:
        """Declared jobs that no commit is known for, oldest first: on start-up, to be matched with Git."""
        query = (
            select(jobs)
            .where(jobs.c.status == JobStatus.QUEUED, jobs.c.declared, jobs.c.revision.is_(None))
            .order_by(jobs.c.created_at, jobs.c.id)
        )
        return self._all(query)

    def discard(self, job_id: UUID) -> None:
        """Forget a job whose commit was refused before anybody heard of it."""
        query = delete(jobs).where(
            jobs.c.id == job_id,
            jobs.c.status == JobStatus.QUEUED,
            jobs.c.declared,
            jobs.c.revision.is_(None),
        )
        if write(self._engine, lambda connection: connection.execute(query).rowcount) == 0:
            raise Conflict(f"Job {job_id} is not waiting for its commit, so it cannot be discarded. Cancel it.")

    def reject(self, job_id: UUID, error_code: str, message: str, now: datetime) -> Job:
        """Fail a job that is queued and can never run, such as one whose intent no longer fits the store."""
        values = {"error_code": error_code, "error_message": shortened(message)}
        return write(self._engine, lambda connection: end_queued(connection, job_id, JobStatus.FAILED, values, now))

    def cancel(self, job_id: UUID, now: datetime, key: idempotency.Key | None = None) -> Job:
        """Cancel a queued job at once; ask the worker of a running one to stop it (its heartbeat tells).

        Again is fine; a job that has ended otherwise is a Conflict.
        """

        def work(connection: Connection) -> Job:
            job = _cancel(connection, job_id, now)
            if key is not None:
                idempotency.take(connection, key, job_id, now)
            return job

        return write(self._engine, work)

    def hurry(self, node_id: UUID, error_code: str, now: datetime) -> int:
        """Let the node's jobs that wait for another attempt after this error run now; how many there are."""
        query = update(jobs).where(
            jobs.c.node_id == node_id,
            jobs.c.status == JobStatus.QUEUED,
            jobs.c.error_code == error_code,
            jobs.c.run_after > now,
        )
        query = query.values(run_after=now, updated_at=now)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)

    def get(self, job_id: UUID) -> Job:
        found = self._all(select(jobs).where(jobs.c.id == job_id))
        if not found:
            raise _unknown(job_id)
        return found[0]

    def page(self, wanted: JobFilter | None = None, limit: int = 100, cursor: str | None = None) -> JobPage:
        """Jobs, newest first, at most ``limit`` (up to 1,000) of them; ``cursor`` from the page before."""
        limit = max(1, min(limit, 1000))
        query = _filtered(select(jobs), wanted or JobFilter())
        if cursor is not None:
            query = query.where(tuple_(jobs.c.created_at, jobs.c.id) < tuple_(*_read_cursor(cursor)))
        query = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit + 1)
        found = self._all(query)
        more = len(found) > limit
        return JobPage(tuple(found[:limit]), _cursor(found[limit - 1]) if more else None)

    def counts(self, wanted: JobFilter | None = None) -> dict[JobStatus, int]:
        """How many jobs have each status, zeros included."""
        query = _filtered(select(jobs.c.status, func.count()), wanted or JobFilter()).group_by(jobs.c.status)
        with reading(self._engine) as connection:
            found = {JobStatus(status): int(count) for status, count in connection.execute(query)}
        return {status: found.get(status, 0) for status in JobStatus}

    def prune(self, before: datetime) -> int:
        """Forget jobs that finished before then; how many."""
        query = delete(jobs).where(jobs.c.status.in_(FINISHED), jobs.c.finished_at < before)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)

    def _all(self, query: Select[Any]) -> list[Job]:
        with reading(self._engine) as connection:
            return [job_from(row) for row in connection.execute(query)]


def _enqueue(connection: Connection, new: NewJob, now: datetime) -> Job:
    if new.dedupe_key is not None:
        # Locked, so that it cannot start before this transaction has ended: its run sees what the caller saw.
        same = select(jobs).where(jobs.c.dedupe_key == new.dedupe_key, jobs.c.status == JobStatus.QUEUED)
        if row := connection.execute(same.with_for_update()).first():
            if new.key is not None:
                idempotency.take(connection, new.key, row.id, now)
            return job_from(row)
    job = _queued(new, now)
    values = {name: getattr(job, name) for name in _PLAIN}
    stored = [[lock.resource, lock.capacity] for lock in job.locks]
    connection.execute(insert(jobs).values(**values, status=job.status, locks=stored))
    if new.key is not None:
        idempotency.take(connection, new.key, job.id, now)
    tell(connection, job, EventKind.ACCEPTED, {"job_type": job.job_type}, now)
    return job


def tell(connection: Connection, job: Job, kind: EventKind, data: Mapping[str, Any], now: datetime) -> None:
    """Note what became of a job, in the transaction in which it does. Looks and the like have no history."""
    if not job.ephemeral:
        note(connection, job.id, kind, data, now)


def _queued(new: NewJob, now: datetime) -> Job:
    resources = [lock.resource for lock in new.locks]
    if len(set(resources)) < len(resources):
        raise ValueError(f"job {new.id} names a lock twice: {resources}")
    return Job(
        id=new.id,
        job_type=new.job_type,
        status=JobStatus.QUEUED,
        site_id=new.site_id,
        environment_id=new.environment_id,
        node_id=new.node_id,
        attempt_count=0,
        max_attempts=new.max_attempts,
        run_after=new.run_after or now,
        locked_at=None,
        locked_by=None,
        started_at=None,
        finished_at=None,
        error_code=None,
        error_message=None,
        created_at=now,
        updated_at=now,
        intent=new.intent,
        declared=new.declared,
        revision=new.revision,
        fence=None,
        lease_until=None,
        heartbeat_at=None,
        cancel_requested=False,
        locks=new.locks,
        dedupe_key=new.dedupe_key,
        ephemeral=new.ephemeral,
        result=None,
    )


def _mark_committed(connection: Connection, job_id: UUID, revision: str, now: datetime) -> None:
    job = locked_job(connection, job_id)
    if job.revision not in {None, revision}:
        raise Conflict(f"Job {job_id} is declared by commit {job.revision} already, not by {revision}.")
    if job.revision is None:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(revision=revision, updated_at=now))
        tell(connection, job, EventKind.COMMITTED, {"revision": revision}, now)


def _cancel(connection: Connection, job_id: UUID, now: datetime) -> Job:
    job = locked_job(connection, job_id)
    if job.status is JobStatus.CANCELLED or (job.status is JobStatus.RUNNING and job.cancel_requested):
        return job
    if job.status is not JobStatus.RUNNING:
        if job.declared and job.revision is None and job.status is JobStatus.QUEUED:
            raise Conflict(f"Job {job_id} is just being committed to the store. Cancel it once it is.")
        return end_queued(connection, job_id, JobStatus.CANCELLED, {}, now)
    return request_cancel(connection, job, {}, now)


def request_cancel(connection: Connection, job: Job, data: Mapping[str, Any], now: datetime) -> Job:
    """Have the worker of a running job stop it. ``data``: what its event says of why."""
    tell(connection, job, EventKind.CANCEL_REQUESTED, data, now)
    query = update(jobs).where(jobs.c.id == job.id).values(cancel_requested=True, updated_at=now)
    return job_from(connection.execute(query.returning(jobs)).one())


def end_queued(
    connection: Connection, job_id: UUID, status: JobStatus, values: Mapping[str, Any], now: datetime
) -> Job:
    """End a job that no worker has, as ``status``."""
    job = locked_job(connection, job_id)
    if job.status is not JobStatus.QUEUED:
        raise Conflict(f"Job {job_id} is {job.status}, so it can no longer be {status} from the queue.")
    query = update(jobs).where(jobs.c.id == job_id)
    query = query.values(status=status, finished_at=now, updated_at=now, **values)
    ended = job_from(connection.execute(query.returning(jobs)).one())
    tell(connection, ended, EventKind.FINISHED, ending_of(ended), now)
    return ended


def ending_of(job: Job) -> dict[str, Any]:
    """How a job ended, as its last event says."""
    return {"status": job.status.value, "error_code": job.error_code}


def locked_job(connection: Connection, job_id: UUID) -> Job:
    """The job, whose row nobody else changes until the transaction ends."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id).with_for_update()).first()
    if row is None:
        raise _unknown(job_id)
    return job_from(row)


def _unknown(job_id: UUID) -> NotFound:
    return NotFound(f"Job {job_id} does not exist. It may be older than the jobs that are kept.")


def _filtered(query: Select[Any], wanted: JobFilter) -> Select[Any]:
    if wanted.statuses is not None:
        query = query.where(jobs.c.status.in_(wanted.statuses))
    if wanted.job_types is not None:
        query = query.where(jobs.c.job_type.in_(wanted.job_types))
    if wanted.error_codes is not None:
        query = query.where(jobs.c.error_code.in_(wanted.error_codes))
    if wanted.created_until is not None:
        query = query.where(jobs.c.created_at <= wanted.created_until)
    for name in ("site_id", "environment_id", "node_id", "dedupe_key", "ephemeral"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(jobs.c[name] == value)
    return query


def _cursor(job: Job) -> str:
    return base64.urlsafe_b64encode(json.dumps([job.created_at.isoformat(), str(job.id)]).encode()).decode()


def _read_cursor(cursor: str) -> tuple[datetime, UUID]:
    try:
        moment, job_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        created_at = datetime.fromisoformat(moment)
        if created_at.tzinfo is None:
            raise ValueError("no time zone")
        return created_at, UUID(job_id)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise Invalid("The cursor is not one that a page of jobs gave. Leave it out to begin anew.") from error
