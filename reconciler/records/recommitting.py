"""What becomes of jobs when the commits that declare them are made anew, or fit no more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, update

from reconciler.core.jobs import JobErrorCode, JobStatus
from reconciler.records.database import write
from reconciler.records.events import EventKind
from reconciler.records.jobs import Job, end_queued, job_from, locked_job, tell
from reconciler.records.outcomes import shortened
from reconciler.records.tables import jobs


class Recommitting:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def recommit(self, revisions: Mapping[str, str], now: datetime) -> None:
        """Commits were made anew: each job that one of the former declares is declared by the one that it became."""

        def work(connection: Connection) -> None:
            for before, after in revisions.items():
                query = update(jobs).where(jobs.c.revision == before)
                connection.execute(query.values(revision=after, updated_at=now))

        if revisions:
            write(self._engine, work)

    def overtake(self, job_id: UUID, message: str, now: datetime) -> Job:
        """Upstream left no room for the job's commit: it fails at once, or as soon as its worker has stopped it.

        A job that has ended stays as it is. Again is fine.
        """
        return write(self._engine, lambda connection: _overtake(connection, job_id, message, now))


def _overtake(connection: Connection, job_id: UUID, message: str, now: datetime) -> Job:
    job = locked_job(connection, job_id)
    values = {"error_code": JobErrorCode.UPSTREAM_CONFLICT, "error_message": shortened(message)}
    if job.status is JobStatus.QUEUED:
        return end_queued(connection, job_id, JobStatus.FAILED, values, now)
    if job.status is not JobStatus.RUNNING or job.error_code == JobErrorCode.UPSTREAM_CONFLICT:
        return job
    tell(connection, job, EventKind.CANCEL_REQUESTED, {}, now)
    query = update(jobs).where(jobs.c.id == job_id).values(cancel_requested=True, updated_at=now, **values)
    return job_from(connection.execute(query.returning(jobs)).one())
