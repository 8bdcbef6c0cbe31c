"""Who did what, from where, and how it ended: one row per mutation. Nothing here is a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, delete, insert, select

from reconciler.records.database import reading, write
from reconciler.records.tables import audit

_SECRET = re.compile(r"pass|secret|token|cookie|authorization|credential|private|api_?key", re.IGNORECASE)
REMOVED = "[removed]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of one operation. ``outcome``: ``accepted``, ``done``, or the code of the error."""

    who: str
    """E-mail address, ``git author <…>``, or ``trueup`` itself."""
    source: str
    """Address that the request came from; empty for the loop."""
    operation: str
    outcome: str
    site_id: UUID | None = None
    environment_id: UUID | None = None
    node_id: UUID | None = None
    job_id: UUID | None = None
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    id: int
    at: datetime
    entry: Entry


class Audit:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def append(self, entry: Entry, now: datetime) -> int:
        """Record an operation; values whose name sounds like a secret are left out of the summary."""
        row = insert(audit).values(
            at=now,
            who=entry.who,
            source=entry.source,
            operation=entry.operation,
            outcome=entry.outcome,
            site_id=entry.site_id,
            environment_id=entry.environment_id,
            node_id=entry.node_id,
            job_id=entry.job_id,
            summary=without_secrets(entry.summary),
        )
        return write(self._engine, lambda connection: int(connection.execute(row.returning(audit.c.id)).scalar_one()))

    def latest(
        self,
        limit: int = 100,
        before_id: int | None = None,
        environment_id: UUID | None = None,
        site_id: UUID | None = None,
        job_id: UUID | None = None,
    ) -> list[Recorded]:
        """The newest entries, newest first; ``before_id`` goes on from an earlier answer's last."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(audit.c.id < before_id)
        for column, value in (
            (audit.c.environment_id, environment_id),
            (audit.c.site_id, site_id),
            (audit.c.job_id, job_id),
        ):
            if value is not None:
                query = query.where(column == value)
        with reading(self._engine) as connection:
            return [_recorded(row) for row in connection.execute(query)]

    def logins_since(self, since: datetime) -> dict[UUID, list[tuple[datetime, str]]]:
        """The magic logins that were given out since then: when and to whom, by environment."""
        query = select(audit.c.environment_id, audit.c.at, audit.c.who).where(
            audit.c.at >= since, audit.c.operation == "magic-login", audit.c.outcome == "done"
        )
        found: dict[UUID, list[tuple[datetime, str]]] = {}
        with reading(self._engine) as connection:
            for row in connection.execute(query):
                found.setdefault(row.environment_id, []).append((row.at, row.who))
        return found

    def prune(self, before: datetime) -> int:
        """Forget entries from before then; how many."""
        query = delete(audit).where(audit.c.at < before)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)


def without_secrets(value: Any) -> Any:
    """``value`` with what sounds like a secret replaced, at any depth."""
    if isinstance(value, Mapping):
        return {
            str(key): REMOVED if _SECRET.search(str(key)) else without_secrets(inner) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return value


def _recorded(row: Any) -> Recorded:
    entry = Entry(
        who=row.who,
        source=row.source,
        operation=row.operation,
        outcome=row.outcome,
        site_id=row.site_id,
        environment_id=row.environment_id,
        node_id=row.node_id,
        job_id=row.job_id,
        summary=row.summary,
    )
    return Recorded(row.id, row.at, entry)
