"""The outbox of reports: each row is sent once. A process claims it before it sends, and says what came of it.

What a process that vanished was sending may have arrived, so it is not sent again: it is ``uncertain``. Only what
certainly did not arrive is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Engine, Select, func, select, update

from reconciler.records.database import reading, write
from reconciler.records.reports import HEARD
from reconciler.records.tables import report_deliveries

Status = Literal["pending", "sending", "sent", "failed", "uncertain", "superseded"]
VANISHED = "The process that was sending it ended. It may have arrived, so it is not sent again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One report for one target."""

    key: str
    report_id: UUID
    target: str
    name: str
    changes: list[dict[str, Any]]
    is_first: bool
    status: Status
    attempts: int
    next_attempt_at: datetime
    ended_at: datetime | None
    error: str | None
    created_at: datetime


class Deliveries:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, report_id: UUID) -> list[Delivery]:
        """A report's deliveries, by the names of their targets."""
        query = select(report_deliveries).where(report_deliveries.c.report_id == report_id)
        return self._all(query.order_by(report_deliveries.c.name, report_deliveries.c.key))

    def latest(self) -> Mapping[str, Delivery]:
        """The newest delivery to each target, by the target; superseded ones don't count."""
        return self._newest(report_deliveries.c.status != "superseded")

    def heard(self) -> Mapping[str, Delivery]:
        """The newest that each target has heard, or may have."""
        return self._newest(report_deliveries.c.status.in_(HEARD))

    def pending(self) -> list[Delivery]:
        """What waits for its first or next attempt."""
        return self._all(select(report_deliveries).where(report_deliveries.c.status == "pending"))

    def due(self, now: datetime) -> list[Delivery]:
        """What may be sent now, oldest first."""
        columns = report_deliveries.c
        query = select(report_deliveries).where(columns.status == "pending", columns.next_attempt_at <= now)
        return self._all(query.order_by(columns.created_at, columns.key))

    def claim(self, key: str, holder: str, now: datetime, life: timedelta) -> bool:
        """Take a delivery for one attempt. False: another process was first, or it is not due."""
        columns = report_deliveries.c
        query = update(report_deliveries).where(
            columns.key == key, columns.status == "pending", columns.next_attempt_at <= now
        )
        query = query.values(
            status="sending", claimed_by=holder, claimed_until=now + life, attempts=columns.attempts + 1
        )
        return write(self._engine, lambda connection: connection.execute(query).rowcount == 1)

    def end(
        self, key: str, holder: str, status: Literal["sent", "failed", "uncertain"], now: datetime, error: str | None
    ) -> bool:
        """Say what came of the attempt for good. False: the claim was lost meanwhile."""
        return self._settle(key, holder, {"status": status, "ended_at": now, "error": error})

    def again(self, key: str, holder: str, at: datetime, error: str) -> bool:
        """It certainly did not arrive: another attempt at that moment. False: the claim was lost meanwhile."""
        return self._settle(key, holder, {"status": "pending", "next_attempt_at": at, "error": error})

    def expire(self, now: datetime, is_dead: Callable[[str], bool]) -> list[str]:
        """End the attempts of processes that vanished; the names of their targets."""
        return write(self._engine, lambda connection: _expire(connection, now, is_dead))

    def _settle(self, key: str, holder: str, values: Mapping[str, Any]) -> bool:
        columns = report_deliveries.c
        query = update(report_deliveries).where(
            columns.key == key, columns.status == "sending", columns.claimed_by == holder
        )
        query = query.values(claimed_by=None, claimed_until=None, **values)
        return write(self._engine, lambda connection: connection.execute(query).rowcount == 1)

    def _newest(self, wanted: Any) -> Mapping[str, Delivery]:
        columns = report_deliveries.c
        order = (columns.created_at.desc(), columns.key.desc())
        rank = func.row_number().over(partition_by=columns.target, order_by=order)
        ranked = select(columns.key, rank.label("rank")).where(wanted).subquery()
        query = select(report_deliveries).join(ranked, ranked.c.key == columns.key).where(ranked.c.rank == 1)
        return {delivery.target: delivery for delivery in self._all(query)}

    def _all(self, query: Select[Any]) -> list[Delivery]:
        with reading(self._engine) as connection:
            return [_delivery(row) for row in connection.execute(query)]


def _expire(connection: Connection, now: datetime, is_dead: Callable[[str], bool]) -> list[str]:
    columns = report_deliveries.c
    sending = select(columns.key, columns.name, columns.claimed_by, columns.claimed_until)
    rows = connection.execute(sending.where(columns.status == "sending").with_for_update()).all()
    lost = [row for row in rows if row.claimed_until <= now or is_dead(row.claimed_by)]
    if lost:
        query = update(report_deliveries).where(columns.key.in_([row.key for row in lost]))
        connection.execute(
            query.values(status="uncertain", ended_at=now, error=VANISHED, claimed_by=None, claimed_until=None)
        )
    return [row.name for row in lost]


_FIELDS = tuple(Delivery.__dataclass_fields__)


def _delivery(row: Any) -> Delivery:
    return Delivery(**{name: getattr(row, name) for name in _FIELDS})
