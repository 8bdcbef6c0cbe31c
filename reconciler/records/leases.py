"""Named leases: of several control planes on one database, one does the ticking."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, delete, insert, select, update

from reconciler.records.database import reading, write
from reconciler.records.tables import leases


class Leases:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def acquire(self, name: str, holder: str, now: datetime, life: timedelta) -> bool:
        """Take the lease, or renew it. False: somebody else holds it."""
        return write(self._engine, lambda connection: _acquire(connection, name, holder, now, now + life))

    def release(self, name: str, holder: str) -> None:
        """Give the lease back, so that the next one need not wait; nothing when it is somebody else's."""
        query = delete(leases).where(leases.c.name == name, leases.c.holder == holder)
        write(self._engine, lambda connection: connection.execute(query))

    def holder(self, name: str, now: datetime) -> str | None:
        """Who holds the lease now."""
        query = select(leases.c.holder).where(leases.c.name == name, leases.c.until > now)
        with reading(self._engine) as connection:
            found: str | None = connection.execute(query).scalar()
            return found


def _acquire(connection: Connection, name: str, holder: str, now: datetime, until: datetime) -> bool:
    query = select(leases.c.holder, leases.c.until).where(leases.c.name == name).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        connection.execute(insert(leases).values(name=name, holder=holder, until=until))
        return True
    if row.holder != holder and row.until > now:
        return False
    connection.execute(update(leases).where(leases.c.name == name).values(holder=holder, until=until))
    return True
