"""Each environment's status as ``core`` summarized it, with a counter that grows whenever it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from reconciler.records.database import reading, write
from reconciler.records.tables import environment_status


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    environment_id: UUID
    status: str
    """``active``, ``cloning``, ``deploying``, ``restoring`` or ``failed``."""
    reason: str | None
    job_id: UUID | None
    """The job that made it so."""
    version: int
    """From 1, by one with every change of status, reason or job."""
    changed_at: datetime


class EnvironmentStatuses:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._all: tuple[tuple[Any, ...], Mapping[UUID, EnvironmentStatus]] | None = None

    def put(
        self, environment_id: UUID, status: str, now: datetime, reason: str | None = None, job_id: UUID | None = None
    ) -> EnvironmentStatus:
        """Make this the status. Putting what is there already changes nothing."""
        return write(self._engine, lambda connection: _put(connection, environment_id, status, reason, job_id, now))

    def get(self, environment_id: UUID) -> EnvironmentStatus | None:
        """The environment's status; None: nothing ever happened to it."""
        with reading(self._engine) as connection:
            return _get(connection, environment_id)

    def all(self) -> Mapping[UUID, EnvironmentStatus]:
        """Every environment's status, by environment id; read again only where one has changed since the last time."""
        table = environment_status.c
        stamp = select(func.count(), func.sum(table.version), func.max(table.changed_at))
        with reading(self._engine) as connection:
            seen = tuple(connection.execute(stamp).one())
            known = self._all
            if known is None or known[0] != seen:
                rows = connection.execute(select(environment_status))
                # Another thread may put here what it read before: what this one read is what it gives.
                self._all = known = seen, {row.environment_id: _status(row) for row in rows}
            return known[1]

    def forget(self, environment_id: UUID) -> None:
        """The environment is gone from the fleet."""
        query = delete(environment_status).where(environment_status.c.environment_id == environment_id)
        write(self._engine, lambda connection: connection.execute(query))


def _put(
    connection: Connection, environment_id: UUID, status: str, reason: str | None, job_id: UUID | None, now: datetime
) -> EnvironmentStatus:
    known = _get(connection, environment_id, lock=True)
    if known and (known.status, known.reason, known.job_id) == (status, reason, job_id):
        return known
    values = {"status": status, "reason": reason, "job_id": job_id, "changed_at": now}
    if known is None:
        connection.execute(insert(environment_status).values(environment_id=environment_id, version=1, **values))
        return EnvironmentStatus(environment_id, status, reason, job_id, 1, now)
    query = update(environment_status).where(environment_status.c.environment_id == environment_id)
    connection.execute(query.values(version=known.version + 1, **values))
    return EnvironmentStatus(environment_id, status, reason, job_id, known.version + 1, now)


def _get(connection: Connection, environment_id: UUID, *, lock: bool = False) -> EnvironmentStatus | None:
    query = select(environment_status).where(environment_status.c.environment_id == environment_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _status(row)


def _status(row: Any) -> EnvironmentStatus:
    return EnvironmentStatus(row.environment_id, row.status, row.reason, row.job_id, row.version, row.changed_at)
