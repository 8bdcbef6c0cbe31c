"""The job store as workers see it: claim a job with its locks, keep its lease, end it once, take over from the dead.

Each claim gets a fence, larger than any before it. Whoever comes with an older one is late: the job is somebody
else's by now, and nothing that the late one says is stored (``LateFence``). Nodes remember fences too, longer than
this database may live: fences follow the clock, so that those of a new or an older database are larger nevertheless.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Select, delete, func, insert, or_, select, update

from reconciler.core.errors import LateFence
from reconciler.core.jobs import GIVES_WAY, RETRY_DELAYS, JobErrorCode, JobStatus, JobType
from reconciler.records import outcomes
from reconciler.records.database import reading, write
from reconciler.records.events import EventKind
from reconciler.records.jobs import Job, ending_of, job_from, locks_from, only_clears, request_cancel, tell
from reconciler.records.locks import Lock, Waiting, fitting, free_slot
from reconciler.records.outcomes import Outcome
from reconciler.records.tables import fences, jobs, locks

LEASE = timedelta(seconds=60)
MOST_TIMES = 3
"""How often one after the other gives way to the loop, of those with one dedupe key."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that is this worker's as long as its heartbeats arrive in time."""

    job: Job
    fence: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A job that its worker no longer has. Stop what may still run under ``fence``; ``job`` is as it is now."""

    job: Job
    fence: int
    locked_by: str


class Queue:
    def __init__(self, engine: Engine, lease: timedelta = LEASE, delays: Sequence[timedelta] = RETRY_DELAYS) -> None:
        self._engine = engine
        self._lease = lease
        self._delays = delays

    def claim(self, worker: str, now: datetime, job_types: Collection[str] | None = None) -> Claimed | None:
        """The oldest job that may run now, with all its locks; None: nothing to do.

        ``locks`` has the rule. Ready is a queued job whose time has come and that is undeclared or committed;
        jobs that are not ready hold nobody back. ``job_types``: only these, the others keep their place in line.

        Jobs that give way come after all others. One that runs is asked to stop as soon as it keeps a job that is
        ready from a lock, whoever claims, and for whatever that job is.
        """

        def wanted(row: Any) -> bool:
            return job_types is None or row.job_type in job_types

        return write(self._engine, lambda connection: self._claim(connection, worker, now, wanted))

    def claim_one(self, job_id: UUID, worker: str, now: datetime, *, in_line: bool) -> Claimed | None:
        """This job, under the same rule; None: not yet. ``in_line=False``: jobs that wait for workers wait for it."""
        only = None if in_line else job_id
        return write(
            self._engine, lambda connection: self._claim(connection, worker, now, lambda row: row.id == job_id, only)
        )

    def blocker(self, job: Job) -> Job | None:
        """The job that keeps a queued one from running: it has its lock, or was in line for it before; None: nobody."""
        with reading(self._engine) as connection:
            for lock in job.locks:
                query = select(jobs).join(locks, locks.c.job_id == jobs.c.id).where(locks.c.resource == lock.resource)
                holders = [job_from(row) for row in connection.execute(query.order_by(jobs.c.started_at, jobs.c.id))]
                if len(holders) >= lock.capacity:
                    return holders[0]
            wanted = {lock.resource for lock in job.locks}
            older = select(jobs).where(jobs.c.status == JobStatus.QUEUED, jobs.c.created_at <= job.created_at)
            if job.job_type not in GIVES_WAY:
                older = older.where(jobs.c.job_type.not_in(GIVES_WAY))
            found = (job_from(row) for row in connection.execute(older.order_by(jobs.c.created_at, jobs.c.id)))
            others = (one for one in found if one.id != job.id)
            return next((one for one in others if wanted & {lock.resource for lock in one.locks}), None)

    def heartbeat(self, job_id: UUID, fence: int, now: datetime) -> bool:
        """Extend the lease. True: somebody wants the job cancelled; stop and finish with ``Stopped``."""
        values = {"heartbeat_at": now, "lease_until": now + self._lease, "updated_at": now}
        query = update(jobs).where(*_is_held(job_id, fence)).values(**values).returning(jobs.c.cancel_requested)
        cancel = write(self._engine, lambda connection: connection.execute(query).scalar())
        if cancel is None:
            raise _late(job_id, fence)
        return bool(cancel)

    def finish(self, job_id: UUID, fence: int, outcome: Outcome, now: datetime) -> Job:
        """End this attempt and give its locks back: succeeded, cancelled, failed, or queued for the next attempt."""

        def work(connection: Connection) -> Job:
            job = _held(connection, job_id, fence)
            return _settle(connection, job, _ending(job, outcome, now, self._delays), now)

        return write(self._engine, work)

    def release(self, job_id: UUID, fence: int, now: datetime) -> Job:
        """Give a job back unharmed, because this worker stops: the attempt does not count."""

        def work(connection: Connection) -> Job:
            job = _held(connection, job_id, fence)
            values = _queued_again(now) | {"attempt_count": job.attempt_count - 1}
            return _settle(connection, job, _stopped(job) if job.cancel_requested else values, now)

        return write(self._engine, work)

    def expire(self, now: datetime) -> list[Lost]:
        """Take jobs back whose lease ran out: queued again, or failed after the last attempt.

        Stopping what they left running is the caller's.
        """
        query = select(jobs).where(jobs.c.status == JobStatus.RUNNING, jobs.c.lease_until < now)

        def work(connection: Connection) -> list[Lost]:
            rows = connection.execute(query.order_by(jobs.c.id).with_for_update(skip_locked=True)).all()
            return [_lose(connection, job_from(row), now) for row in rows]

        return write(self._engine, work)

    def reclaim(self, is_dead: Callable[[str], bool], now: datetime) -> list[Lost]:
        """``expire`` without waiting, for jobs whose ``locked_by`` the caller knows to be dead."""
        with reading(self._engine) as connection:
            running = select(jobs.c.id, jobs.c.fence, jobs.c.locked_by).where(jobs.c.status == JobStatus.RUNNING)
            orphans = [(row.id, row.fence) for row in connection.execute(running) if is_dead(row.locked_by)]

        def work(connection: Connection) -> list[Lost]:
            held = (_find_held(connection, job_id, fence) for job_id, fence in sorted(orphans))
            return [_lose(connection, job, now) for job in held if job is not None]

        return write(self._engine, work) if orphans else []

    def _claim(
        self,
        connection: Connection,
        worker: str,
        now: datetime,
        wanted: Callable[[Any], bool],
        only: UUID | None = None,
    ) -> Claimed | None:
        # Held to the end of the transaction: claims go one by one, and each sees the locks of those before it.
        last = connection.execute(select(fences.c.value).with_for_update()).scalar_one()
        _have_give_way(connection, now)
        with closing(_waiting(connection, now, wanted, only)) as waiting:
            for candidate in fitting(waiting, _slots_held(connection)):
                if _still_queued(connection, candidate.job_id):
                    return self._take(connection, candidate, worker, _next_fence(last, now), now)
        return None

    def _take(self, connection: Connection, candidate: Waiting, worker: str, fence: int, now: datetime) -> Claimed:
        connection.execute(update(fences).values(value=fence))
        for lock in candidate.locks:
            slot = free_slot(lock, _slots_used(connection, lock))
            row = {"resource": lock.resource, "slot": slot, "job_id": candidate.job_id, "fence": fence}
            connection.execute(insert(locks).values(row))
        query = (
            update(jobs)
            .where(jobs.c.id == candidate.job_id)
            .values(
                status=JobStatus.RUNNING,
                attempt_count=jobs.c.attempt_count + 1,
                fence=fence,
                locked_at=now,
                locked_by=worker,
                lease_until=now + self._lease,
                heartbeat_at=now,
                started_at=func.coalesce(jobs.c.started_at, now),
                updated_at=now,
            )
        )
        job = job_from(connection.execute(query.returning(jobs)).one())
        tell(connection, job, EventKind.STARTED, {"attempt": job.attempt_count, "worker": worker}, now)
        return Claimed(job, fence)


def _next_fence(last: int, now: datetime) -> int:
    """Milliseconds since 1970; where more were given than have passed, or the clock was set back, one more than the
    last."""
    return max(last + 1, int(now.timestamp() * 1000))


def _waiting(
    connection: Connection, now: datetime, wanted: Callable[[Any], bool], only: UUID | None
) -> Generator[Waiting, None, None]:
    columns = select(jobs.c.id, jobs.c.job_type, jobs.c.locks)
    of_both = (_ready(columns, now), _ready(columns.add_columns(jobs.c.intent), now, giving_way=True))
    others, giving_way = (query if only is None else query.where(jobs.c.id == only) for query in of_both)
    with closing(connection.execute(others)) as rows:
        for row in rows:
            yield Waiting(row.id, locks_from(row.locks), wanted(row))
    # What was left of a site's data goes first: any number of drills may wait for the one worker that does them.
    for row in sorted(connection.execute(giving_way), key=lambda row: not only_clears(row)):
        yield Waiting(row.id, locks_from(row.locks), wanted(row))


def _ready(query: Select[Any], now: datetime, *, giving_way: bool = False) -> Select[Any]:
    """The queued jobs that may run as soon as they have their locks, oldest first."""
    return query.where(
        jobs.c.status == JobStatus.QUEUED,
        jobs.c.run_after <= now,
        or_(~jobs.c.declared, jobs.c.revision.is_not(None)),
        jobs.c.job_type.in_(GIVES_WAY) if giving_way else jobs.c.job_type.not_in(GIVES_WAY),
    ).order_by(jobs.c.created_at, jobs.c.id)


def _have_give_way(connection: Connection, now: datetime) -> None:
    """Ask the jobs to stop that give way, and have a lock that somebody waits for.

    What only clears up is over in no time, and would come again. What had to give way ``MOST_TIMES`` in a row does so
    no more where it is only the loop that wants something: a site that changes all the time would never be tried.
    """
    running = select(jobs).where(
        jobs.c.status == JobStatus.RUNNING, jobs.c.job_type.in_(GIVES_WAY), ~jobs.c.cancel_requested
    )
    found = [job_from(row) for row in connection.execute(running.with_for_update(skip_locked=True))]
    held = [job for job in found if not only_clears(job)]
    if not held:
        return
    columns = select(jobs.c.id, jobs.c.job_type, jobs.c.intent, jobs.c.locks)
    asked = [
        (row.id, _is_the_loops(row), {lock.resource for lock in locks_from(row.locks)})
        for row in connection.execute(_ready(columns, now))
    ]
    for job in held:
        resources = {lock.resource for lock in job.locks}
        wanting = [(id_, heals) for id_, heals, wanted in asked if wanted & resources]
        waiting = next((id_ for id_, heals in wanting if not heals), None)
        if waiting is None and wanting and not _gave_way_again_and_again(connection, job):
            waiting = wanting[0][0]
        if waiting is not None:
            request_cancel(connection, job, {"for_job_id": str(waiting)}, now)


def _is_the_loops(row: Any) -> bool:
    """Whether it heals, and nobody asked for that."""
    return row.job_type == JobType.RECONCILE and not (row.intent or {}).get("deliberate")


def _gave_way_again_and_again(connection: Connection, job: Job) -> bool:
    if job.dedupe_key is None:
        return False
    former = (
        select(jobs.c.status)
        # All claims wait for this one: there is an index by environment, and none by key. One that was asked for
        # meanwhile, or was cancelled before it began, gave way to nobody.
        .where(jobs.c.environment_id == job.environment_id, jobs.c.dedupe_key == job.dedupe_key)
        .where(jobs.c.id != job.id, jobs.c.started_at.is_not(None))
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(MOST_TIMES)
    )
    return list(connection.execute(former).scalars()) == [JobStatus.CANCELLED] * MOST_TIMES


def _slots_held(connection: Connection) -> dict[str, int]:
    query = select(locks.c.resource, func.count()).group_by(locks.c.resource)
    return {resource: int(count) for resource, count in connection.execute(query)}


def _slots_used(connection: Connection, lock: Lock) -> set[int]:
    return set(connection.execute(select(locks.c.slot).where(locks.c.resource == lock.resource)).scalars())


def _still_queued(connection: Connection, job_id: UUID) -> bool:
    """Lock the job's row. False: somebody is changing it right now, cancelling it perhaps."""
    query = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.status == JobStatus.QUEUED)
    return connection.execute(query.with_for_update(skip_locked=True)).first() is not None


def _is_held(job_id: UUID, fence: int) -> tuple[Any, ...]:
    return jobs.c.id == job_id, jobs.c.fence == fence, jobs.c.status == JobStatus.RUNNING


def _find_held(connection: Connection, job_id: UUID, fence: int) -> Job | None:
    row = connection.execute(select(jobs).where(*_is_held(job_id, fence)).with_for_update()).first()
    return None if row is None else job_from(row)


def _held(connection: Connection, job_id: UUID, fence: int) -> Job:
    job = _find_held(connection, job_id, fence)
    if job is None:
        raise _late(job_id, fence)
    return job


def _late(job_id: UUID, fence: int) -> LateFence:
    return LateFence(f"Job {job_id} is no longer held with fence {fence}. Stop working on it; nothing was stored.")


def _lose(connection: Connection, job: Job, now: datetime) -> Lost:
    assert job.fence is not None  # noqa: S101 (a running job has one)
    who = job.locked_by or "unknown"
    if job.cancel_requested:
        values = _stopped(job)
    elif job.attempt_count < job.max_attempts:
        values = _queued_again(now)
    else:
        attempt = f"attempt {job.attempt_count} of {job.max_attempts}"
        message = f"The worker {who} vanished in {attempt}. See its log, then start the operation again."
        values = _failed(JobErrorCode.JOB_LEASE_LOST, message)
    return Lost(_settle(connection, job, values, now), job.fence, who)


def _ending(job: Job, outcome: Outcome, now: datetime, delays: Sequence[timedelta]) -> dict[str, Any]:
    match outcome:
        case outcomes.Succeeded(result):
            return {"status": JobStatus.SUCCEEDED, "error_code": None, "error_message": None, "result": result}
        case outcomes.Stopped():
            return _stopped(job)
        case outcomes.Failed(code, message, result):
            values = _failed(code, message) | {"result": result}
            if job.cancel_requested:
                return values | _stopped(job)
            again = outcomes.next_attempt(code, job.attempt_count, job.max_attempts, now, delays)
            return values if again is None else values | _queued_again(again)


def _failed(code: str, message: str) -> dict[str, Any]:
    return {"status": JobStatus.FAILED, "error_code": code, "error_message": outcomes.shortened(message)}


def _stopped(job: Job) -> dict[str, Any]:
    """Cancelled, unless it was stopped because upstream left no room for it: that is a failure, which says so."""
    if job.error_code == JobErrorCode.UPSTREAM_CONFLICT:
        return _failed(job.error_code, job.error_message or "")
    return {"status": JobStatus.CANCELLED}


def _queued_again(run_after: datetime) -> dict[str, Any]:
    return {"status": JobStatus.QUEUED, "run_after": run_after, "locked_at": None, "locked_by": None}


def _settle(connection: Connection, job: Job, values: dict[str, Any], now: datetime) -> Job:
    """Give the job's locks back and store how its attempt ended."""
    connection.execute(delete(locks).where(locks.c.job_id == job.id))
    values = values | {"lease_until": None, "heartbeat_at": None, "updated_at": now}
    if values["status"] is not JobStatus.QUEUED:
        values["finished_at"] = now
    elif _another_is_queued(connection, job):
        values["dedupe_key"] = None
    ended = job_from(connection.execute(update(jobs).where(jobs.c.id == job.id).values(**values).returning(jobs)).one())
    tell(connection, ended, *_told(ended, failed="error_code" in values), now)
    if ended.ephemeral:
        _clear_away(connection, ended)
    return ended


def _told(ended: Job, *, failed: bool) -> tuple[EventKind, dict[str, Any]]:
    """What the end of an attempt is to whoever follows the job."""
    if ended.status is not JobStatus.QUEUED:
        return EventKind.FINISHED, ending_of(ended)
    if not failed:
        return EventKind.QUEUED_AGAIN, {"run_after": ended.run_after.isoformat()}
    told = {"error_code": ended.error_code, "run_after": ended.run_after.isoformat()}
    return EventKind.RETRY_SCHEDULED, told | {"attempt": ended.attempt_count, "max_attempts": ended.max_attempts}


def _another_is_queued(connection: Connection, job: Job) -> bool:
    if job.dedupe_key is None:
        return False
    query = select(jobs.c.id).where(jobs.c.dedupe_key == job.dedupe_key, jobs.c.status == JobStatus.QUEUED)
    return connection.execute(query).first() is not None


def _clear_away(connection: Connection, ended: Job) -> None:
    if ended.status in {JobStatus.SUCCEEDED, JobStatus.CANCELLED}:
        connection.execute(delete(jobs).where(jobs.c.id == ended.id))
    if ended.status in {JobStatus.SUCCEEDED, JobStatus.FAILED} and ended.dedupe_key is not None:
        older = delete(jobs).where(
            jobs.c.dedupe_key == ended.dedupe_key,
            jobs.c.ephemeral,
            jobs.c.status == JobStatus.FAILED,
            jobs.c.id != ended.id,
        )
        connection.execute(older)
