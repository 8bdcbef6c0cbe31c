"""The health of each environment's releases, as last looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, and_, delete, insert, select, update

from reconciler.core.observed import ObservedHealth
from reconciler.records.database import reading, write
from reconciler.records.tables import release_health


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseHealth:
    environment_id: UUID
    release_id: UUID
    found: ObservedHealth
    checked_at: datetime
    since: datetime
    """When it became what it is."""
    alone: bool
    """Whether it was so, too, while nobody else worked on the environment."""
    left_for: UUID | None = None
    """The release that Trueup went back to because of this one; forgotten once this one was found healthy."""

    @property
    def health(self) -> str:
        return self.found.health


class Health:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def save(
        self, environment_id: UUID, release_id: UUID, found: ObservedHealth, now: datetime, *, alone: bool
    ) -> ReleaseHealth | None:
        """Remember what was found of a release; what was known before."""
        this = and_(release_health.c.environment_id == environment_id, release_health.c.release_id == release_id)

        def work(connection: Any) -> ReleaseHealth | None:
            row = connection.execute(select(release_health).where(this).with_for_update()).first()
            before = _of(row) if row else None
            same = before is not None and before.health == found.health
            values = {
                "health": found.health,
                "found": found.model_dump(mode="json"),
                "checked_at": now,
                "since": before.since if before and same else now,
                "alone": alone or bool(before and same and before.alone),
                "left_for": before.left_for if before and found.health != "healthy" else None,
            }
            if before:
                connection.execute(update(release_health).where(this).values(**values))
            else:
                ids = {"environment_id": environment_id, "release_id": release_id}
                connection.execute(insert(release_health).values(**ids, **values))
            return before

        return write(self._engine, work)

    def leave(self, environment_id: UUID, release_id: UUID, for_release: UUID | None) -> None:
        """Remember that Trueup goes back from a release to another; None: it could not."""
        this = and_(release_health.c.environment_id == environment_id, release_health.c.release_id == release_id)
        query = update(release_health).where(this).values(left_for=for_release)
        write(self._engine, lambda connection: connection.execute(query))

    def all(self) -> Mapping[tuple[UUID, UUID], ReleaseHealth]:
        """By environment and release id."""
        with reading(self._engine) as connection:
            rows = [_of(row) for row in connection.execute(select(release_health))]
        return {(row.environment_id, row.release_id): row for row in rows}

    def of(self, environment_id: UUID) -> Mapping[UUID, ReleaseHealth]:
        """One environment's, by release id."""
        query = select(release_health).where(release_health.c.environment_id == environment_id)
        with reading(self._engine) as connection:
            rows = [_of(row) for row in connection.execute(query)]
        return {row.release_id: row for row in rows}

    def prune(self, before: datetime) -> int:
        """Forget releases that were not looked at since; how many."""
        query = delete(release_health).where(release_health.c.checked_at < before)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)


def _of(row: Any) -> ReleaseHealth:
    return ReleaseHealth(
        environment_id=row.environment_id,
        release_id=row.release_id,
        found=ObservedHealth.model_validate(row.found),
        checked_at=row.checked_at,
        since=row.since,
        alone=row.alone,
        left_for=row.left_for,
    )
