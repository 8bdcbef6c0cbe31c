"""Requests that were accepted under a key of the client's: the same request again gets the same answer, for a day.

The key is stored in the transaction that stores the job, so that a crash leaves both or neither. A request that was
refused is not remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, delete, insert, select

from reconciler.core.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from reconciler.records.database import reading, write
from reconciler.records.tables import idempotency_keys, jobs

LIFE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Key:
    """What a client sent with a request: who, its key, and the sha256 of all that the request says."""

    owner: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What was answered when the key was first used: a job's id, or else a body."""

    job_id: UUID | None
    answer: dict[str, Any] | None


class IdempotencyKeys:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, key: Key, now: datetime) -> Answered | None:
        """The answer to the first request with this key; None: it is the first.

        Raises:
            IdempotencyKeyReused: the first request said something else.
            IdempotencyKeyInUse: the first request is not answered yet.
        """
        with reading(self._engine) as connection:
            return _find(connection, key, now)

    def remember(self, key: Key, answer: dict[str, Any], now: datetime) -> None:
        """An answer that is no job."""
        write(self._engine, lambda connection: take(connection, key, None, now, answer))

    def prune(self, now: datetime) -> int:
        """Forget keys that are older than a day; how many."""
        query = delete(idempotency_keys).where(idempotency_keys.c.created_at <= now - LIFE)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)


def take(
    connection: Connection, key: Key, job_id: UUID | None, now: datetime, answer: dict[str, Any] | None = None
) -> None:
    """Store the key in the caller's transaction, beside what it stands for.

    Raises:
        IdempotencyKeyReused: it stands for another request.
        IdempotencyKeyInUse: the same request came at the same time, and was first.
    """
    if _find(connection, key, now) is not None:
        raise _in_use(key)
    same = idempotency_keys.c.owner == key.owner, idempotency_keys.c.key == key.key
    # One that is older than a day; a younger one was stored since the look, and then the insertion collides.
    connection.execute(delete(idempotency_keys).where(*same, idempotency_keys.c.created_at <= now - LIFE))
    row = {"owner": key.owner, "key": key.key, "fingerprint": key.fingerprint, "job_id": job_id, "answer": answer}
    connection.execute(insert(idempotency_keys).values(row | {"created_at": now}))


def _find(connection: Connection, key: Key, now: datetime) -> Answered | None:
    columns = idempotency_keys.c
    query = (
        select(columns.fingerprint, columns.job_id, columns.answer, jobs.c.declared, jobs.c.revision, jobs.c.status)
        .join_from(idempotency_keys, jobs, columns.job_id == jobs.c.id, isouter=True)
        .where(columns.owner == key.owner, columns.key == key.key, columns.created_at > now - LIFE)
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    if row.fingerprint != key.fingerprint:
        raise IdempotencyKeyReused(
            f"Idempotency-Key {key.key} was sent with another request before. Give each request a key of its own."
        )
    # Its commit may still be refused, and then the job goes, and the key with it.
    if row.declared and row.revision is None and row.status == "queued":
        raise _in_use(key)
    return Answered(row.job_id, row.answer)


def _in_use(key: Key) -> IdempotencyKeyInUse:
    return IdempotencyKeyInUse(f"The request with Idempotency-Key {key.key} is being worked on. Send it again shortly.")
