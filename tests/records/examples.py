"""Small makers for the tests of the records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from reconciler.records.jobs import NewJob
from reconciler.records.locks import Lock

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def after(**span: float) -> datetime:
    """A moment after noon: ``after(minutes=5)``."""
    return NOON + timedelta(**span)


def new_job(*locks: str | Lock, **values: Any) -> NewJob:
    """A job that needs these locks; a name alone is a lock of capacity 1."""
    taken = tuple(lock if isinstance(lock, Lock) else Lock(lock) for lock in locks)
    return NewJob(**{"id": uuid4(), "job_type": "reconcile", "locks": taken} | values)
