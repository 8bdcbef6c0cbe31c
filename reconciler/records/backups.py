"""Backups: what is kept where of which environment. A row outlives the object that it tells of."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, func, insert, select, update

from reconciler.core.errors import NotFound
from reconciler.records.database import reading, write
from reconciler.records.tables import backups


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    id: UUID
    environment_id: UUID
    backup_scope: str
    status: str
    storage_type: str = "s3"
    storage_path: str | None = None
    retention_until: datetime | None = None
    checksum: str | None = None
    size_bytes: int | None = None
    created_at: datetime
    completed_at: datetime | None = None
    content_id: UUID | None = None
    """The content that the environment had, as far as the node was sure of it."""
    drilled_at: datetime | None = None
    """When it was last restored into a throwaway copy and checked; None: never."""
    drill_status: str | None = None
    """``passed`` or ``failed``, of that drill."""
    drill_error: str | None = None
    """Why it failed, for a person."""


class Backups:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def save(self, backup: Backup) -> None:
        """Remember a backup, or what became of it."""
        values = asdict(backup)
        known = select(backups.c.id).where(backups.c.id == backup.id)

        def work(connection: Any) -> None:
            if connection.execute(known).first() is None:
                connection.execute(insert(backups).values(**values))
            else:
                connection.execute(update(backups).where(backups.c.id == backup.id).values(**values))

        write(self._engine, work)

    def get(self, backup_id: UUID) -> Backup:
        with reading(self._engine) as connection:
            row = connection.execute(select(backups).where(backups.c.id == backup_id)).first()
        if row is None:
            raise NotFound(f"No backup has the id {backup_id}. List an environment's backups to see which there are.")
        return _backup(row)

    def of(self, environment_id: UUID) -> list[Backup]:
        """The environment's backups, newest first."""
        query = (
            select(backups)
            .where(backups.c.environment_id == environment_id)
            .order_by(backups.c.created_at.desc(), backups.c.id.desc())
        )
        with reading(self._engine) as connection:
            return [_backup(row) for row in connection.execute(query)]

    def drilled(self, backup_id: UUID, at: datetime, error: str | None) -> None:
        """Remember how a drill of a backup went; ``error``: why it failed. Nothing else of the row changes."""
        values = {"drilled_at": at, "drill_status": "failed" if error else "passed", "drill_error": error}

        def work(connection: Any) -> None:
            connection.execute(update(backups).where(backups.c.id == backup_id).values(**values))

        write(self._engine, work)

    def newest(self, environment_id: UUID, until: datetime) -> Backup | None:
        """The newest that was completed by then, whatever it has; None: there is none.

        One that is yet to come was written by a clock that was ahead, and may be older than any other.
        """
        done = [one for one in self.of(environment_id) if one.status == "completed" and _at(one) <= until]
        return max(done, key=_at, default=None)

    def first_completed(self) -> dict[UUID, datetime]:
        """Of each environment that has completed backups, when the oldest of them was completed."""
        columns = backups.c.environment_id, func.min(backups.c.completed_at)
        query = select(*columns).where(backups.c.status == "completed").group_by(backups.c.environment_id)
        with reading(self._engine) as connection:
            return {id_: first for id_, first in connection.execute(query) if first is not None}

    def last_drills(self, until: datetime) -> dict[UUID, Backup]:
        """Of each environment whose backups were drilled by then, the one that was last."""
        query = select(backups).where(backups.c.drilled_at <= until).order_by(backups.c.drilled_at)
        with reading(self._engine) as connection:
            return {row.environment_id: _backup(row) for row in connection.execute(query)}

    def over(self, now: datetime, lasting: Collection[UUID]) -> list[Backup]:
        """Completed ones that are kept no longer.

        Of an environment in ``lasting`` the newest good one stays whatever its time: whoever's backups fail, or who
        makes none any more, is not left without any.
        """
        query = select(backups).where(backups.c.status == "completed", backups.c.retention_until < now)
        with reading(self._engine) as connection:
            found = [_backup(row) for row in connection.execute(query)]
        those = {one.environment_id for one in found} & set(lasting)
        known = {id_: [one for one in self.of(id_) if _at(one) <= now] for id_ in those}
        return [one for one in found if one.environment_id not in known or _is_replaced(one, known[one.environment_id])]

    def newest_full(self, environment_id: UUID, until: datetime) -> Backup | None:
        """The same of those that have all of the environment."""
        full = [one for one in self.of(environment_id) if one.backup_scope == "full" and one.status == "completed"]
        return max((one for one in full if one.completed_at and _at(one) <= until), key=_at, default=None)

    def of_content(self, environment_id: UUID, content_id: UUID) -> Backup | None:
        """The newest completed full backup that was taken of the environment while it had this content."""
        return next(
            (
                backup
                for backup in self.of(environment_id)
                if (backup.backup_scope, backup.status, backup.content_id) == ("full", "completed", content_id)
            ),
            None,
        )


def _is_replaced(one: Backup, others: Iterable[Backup]) -> bool:
    """Whether there is a better one that has all that this one has: it is newer, and is not known to be bad."""
    return any(
        other.status == "completed" and other.backup_scope in {one.backup_scope, "full"} and _worth(other) > _worth(one)
        for other in others
    )


def _worth(backup: Backup) -> tuple[bool, datetime, UUID]:
    return backup.drill_status != "failed", _at(backup), backup.id


def _at(backup: Backup) -> datetime:
    return backup.completed_at or backup.created_at


def _backup(row: Any) -> Backup:
    return Backup(**row._mapping)
