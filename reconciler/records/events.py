"""What happened to a job, event by event, numbered from 1: written with the row that it tells of, gone with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, func, insert, select

from reconciler.records.database import reading, write
from reconciler.records.tables import job_events, jobs

MOST = 1000
"""Events that are kept of one job; its progress is told no further than ``MOST_PROGRESS``."""
MOST_PROGRESS = 900


class EventKind(StrEnum):
    ACCEPTED = "accepted"
    COMMITTED = "committed"
    STARTED = "started"
    STEP = "step"
    TASK = "task"
    LEFT_OUT = "left-out"
    CANCEL_REQUESTED = "cancel-requested"
    RETRY_SCHEDULED = "retry-scheduled"
    QUEUED_AGAIN = "queued-again"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Event:
    """``data`` depends on ``kind``: see ``docs/job-types.md``. Free of secrets and of what a node printed."""

    number: int
    at: datetime
    kind: EventKind
    data: dict[str, Any]


class Events:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def tell(self, job_id: UUID, kind: EventKind, data: Mapping[str, Any], now: datetime) -> None:
        """Note progress of a job. Nothing happens when the job is gone, or has told enough."""

        def work(connection: Connection) -> None:
            there = select(jobs.c.ephemeral).where(jobs.c.id == job_id).with_for_update()
            row = connection.execute(there).first()
            if row is not None and not row.ephemeral and _last(connection, job_id) < MOST_PROGRESS:
                note(connection, job_id, kind, data, now)

        write(self._engine, work)

    def after(self, job_id: UUID, number: int = 0, limit: int = MOST) -> list[Event]:
        """The job's events after that number, in order."""
        query = select(job_events).where(job_events.c.job_id == job_id, job_events.c.number > number)
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(job_events.c.number).limit(limit)).all()
        return [Event(row.number, row.at, EventKind(row.kind), row.data) for row in rows]


def note(connection: Connection, job_id: UUID, kind: EventKind, data: Mapping[str, Any], now: datetime) -> None:
    """Add an event in the caller's transaction, which holds the job's row."""
    number = _last(connection, job_id) + 1
    if number <= MOST:
        row = {"job_id": job_id, "number": number, "at": now, "kind": kind.value, "data": dict(data)}
        connection.execute(insert(job_events).values(row))


def _last(connection: Connection, job_id: UUID) -> int:
    query = select(func.coalesce(func.max(job_events.c.number), 0)).where(job_events.c.job_id == job_id)
    return int(connection.execute(query).scalar_one())
