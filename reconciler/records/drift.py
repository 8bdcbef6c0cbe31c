"""The results of drift checks, as history. Nothing found is a result; no check is none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Engine, delete, func, insert, select

from reconciler.records.database import reading, write
from reconciler.records.tables import drift_checks


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCheck:
    id: UUID
    environment_id: UUID
    status: Literal["clean", "drifted"]
    differences: tuple[dict[str, Any], ...]
    created_at: datetime
    job_id: UUID | None = None
    revision: str | None = None
    """The desired state that was compared with."""


class DriftChecks:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def save(self, check: DriftCheck) -> None:
        """Remember a check. Saving the same id again, as a repeated job does, replaces it."""
        row = insert(drift_checks).values(
            id=check.id,
            environment_id=check.environment_id,
            status=check.status,
            differences=list(check.differences),
            created_at=check.created_at,
            job_id=check.job_id,
            revision=check.revision,
        )
        earlier = delete(drift_checks).where(drift_checks.c.id == check.id)
        write(self._engine, lambda connection: (connection.execute(earlier), connection.execute(row)))

    def latest(self, environment_id: UUID, until: datetime | None = None) -> DriftCheck | None:
        """The environment's newest check, of those that were made ``until`` then; None: never checked."""
        found = self.history(environment_id, limit=1, until=until)
        return found[0] if found else None

    def latest_all(self) -> dict[UUID, DriftCheck]:
        """The newest check of every environment that has one, by environment id."""
        rank = func.row_number().over(
            partition_by=drift_checks.c.environment_id,
            order_by=(drift_checks.c.created_at.desc(), drift_checks.c.id.desc()),
        )
        ranked = select(drift_checks.c.id, rank.label("rank")).subquery()
        query = select(drift_checks).join(ranked, ranked.c.id == drift_checks.c.id).where(ranked.c.rank == 1)
        with reading(self._engine) as connection:
            return {row.environment_id: _check(row) for row in connection.execute(query)}

    def history(self, environment_id: UUID, limit: int = 50, until: datetime | None = None) -> list[DriftCheck]:
        """The environment's checks, newest first; those that were made ``until`` then."""
        query = select(drift_checks).where(drift_checks.c.environment_id == environment_id)
        if until is not None:
            query = query.where(drift_checks.c.created_at <= until)
        query = query.order_by(drift_checks.c.created_at.desc(), drift_checks.c.id.desc()).limit(limit)
        with reading(self._engine) as connection:
            return [_check(row) for row in connection.execute(query)]

    def prune(self, before: datetime) -> int:
        """Forget checks from before then, but never an environment's newest; how many."""
        newer = drift_checks.alias()
        superseded = (
            select(newer.c.id)
            .where(
                newer.c.environment_id == drift_checks.c.environment_id,
                newer.c.created_at > drift_checks.c.created_at,
            )
            .exists()
        )
        query = delete(drift_checks).where(drift_checks.c.created_at < before, superseded)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)


def _check(row: Any) -> DriftCheck:
    return DriftCheck(
        id=row.id,
        environment_id=row.environment_id,
        status=row.status,
        differences=tuple(row.differences),
        created_at=row.created_at,
        job_id=row.job_id,
        revision=row.revision,
    )
