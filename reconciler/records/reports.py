"""Drift reports as they were made, newest first, and no more of them than are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from reconciler.core.errors import NotFound
from reconciler.records.database import reading, write
from reconciler.records.tables import drift_reports, report_deliveries

KEPT = 200
"""Reports that are kept at most, besides the newest that each target was sent."""
HEARD = ("sending", "sent", "uncertain")
"""A target may know what such a delivery tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """``head`` and ``report`` are the report's data, the first without what makes it long."""

    id: UUID
    created_at: datetime
    trigger: str
    head: dict[str, Any]
    report: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """What is to be sent of a report to one target. ``target`` is its identity, ``name`` what people are told."""

    key: str
    target: str
    name: str
    changes: list[dict[str, Any]]
    is_first: bool


class DriftReports:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def save(self, stored: StoredReport, deliveries: Sequence[NewDelivery], superseded: Sequence[str]) -> bool:
        """Keep a report with what is to be sent of it, in place of the pending deliveries ``superseded``.

        False, and nothing is kept, when one of these was taken up meanwhile. A report that is kept already stays.
        """
        return write(self._engine, lambda connection: _save(connection, stored, deliveries, superseded))

    def has(self, report_id: UUID) -> bool:
        with reading(self._engine) as connection:
            query = select(drift_reports.c.id).where(drift_reports.c.id == report_id)
            return connection.execute(query).first() is not None

    def get(self, report_id: UUID) -> StoredReport:
        """One report.

        Raises:
            NotFound: there is none with this id, or it is kept no longer.
        """
        with reading(self._engine) as connection:
            row = connection.execute(select(drift_reports).where(drift_reports.c.id == report_id)).first()
        if row is None:
            raise NotFound(f"No drift report has the id {report_id}. List them to see which are kept.")
        return _stored(row)

    def latest(self) -> StoredReport | None:
        """The newest report; None: none was ever made."""
        query = select(drift_reports).order_by(drift_reports.c.created_at.desc(), drift_reports.c.id.desc()).limit(1)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return None if row is None else _stored(row)

    def heads(self, limit: int) -> list[dict[str, Any]]:
        """What a list tells, newest first."""
        columns = drift_reports.c
        query = select(columns.head).order_by(columns.created_at.desc(), columns.id.desc()).limit(limit)
        with reading(self._engine) as connection:
            return [row.head for row in connection.execute(query)]

    def last_scheduled(self, until: datetime) -> datetime | None:
        """When the newest scheduled report was made, of those that were made by then."""
        made = drift_reports.c.trigger == "schedule", drift_reports.c.created_at <= until
        query = select(func.max(drift_reports.c.created_at)).where(*made)
        with reading(self._engine) as connection:
            found: datetime | None = connection.execute(query).scalar()
            return found

    def prune(self, before: datetime) -> int:
        """Forget reports from before then and beyond ``KEPT``, but never what a target was sent last; how many."""
        return write(self._engine, lambda connection: _prune(connection, before))


def _save(
    connection: Connection, stored: StoredReport, deliveries: Sequence[NewDelivery], superseded: Sequence[str]
) -> bool:
    if connection.execute(select(drift_reports.c.id).where(drift_reports.c.id == stored.id)).first():
        return True
    columns = report_deliveries.c
    pending = select(columns.key).where(columns.key.in_(superseded), columns.status == "pending").with_for_update()
    if len(connection.execute(pending).all()) < len(superseded):
        return False
    replaced = update(report_deliveries).where(columns.key.in_(superseded))
    connection.execute(replaced.values(status="superseded", ended_at=stored.created_at))
    values = {name: getattr(stored, name) for name in ("id", "created_at", "trigger", "head", "report")}
    connection.execute(insert(drift_reports).values(values))
    for new in deliveries:
        row = {name: getattr(new, name) for name in ("key", "target", "name", "changes", "is_first")}
        begun = {"status": "pending", "attempts": 0, "next_attempt_at": stored.created_at}
        connection.execute(
            insert(report_deliveries).values(**row, **begun, report_id=stored.id, created_at=stored.created_at)
        )
    return True


def _prune(connection: Connection, before: datetime) -> int:
    columns, sent = drift_reports.c, report_deliveries.c
    rank = func.row_number().over(partition_by=sent.target, order_by=(sent.created_at.desc(), sent.key))
    ranked = select(sent.report_id, rank.label("rank")).where(sent.status.in_(HEARD)).subquery()
    told = select(ranked.c.report_id).where(ranked.c.rank == 1)
    open_ = select(sent.report_id).where(sent.status.in_(("pending", "sending")))
    newest = select(columns.id).order_by(columns.created_at.desc(), columns.id.desc())
    query = delete(drift_reports).where(
        (columns.created_at < before) | columns.id.not_in(newest.limit(KEPT)),
        columns.id.not_in(newest.limit(1)),
        columns.id.not_in(told),
        columns.id.not_in(open_),
    )
    return connection.execute(query).rowcount


def _stored(row: Any) -> StoredReport:
    return StoredReport(id=row.id, created_at=row.created_at, trigger=row.trigger, head=row.head, report=row.report)
