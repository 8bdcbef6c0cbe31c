"""Login sessions. Only the sha256 of a token is stored, so a copy of the database logs nobody in."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, insert, select, update

from reconciler.core.errors import RecordsError
from reconciler.records.database import reading, write
from reconciler.records.tables import sessions

LIFE = timedelta(hours=24)
SEEN_EVERY = timedelta(minutes=1)
"""How exact ``last_seen_at`` is: a write for each request would cost more than it tells."""


@dataclass(frozen=True, slots=True)
class Session:
    email: str
    source: str
    created_at: datetime
    expires_at: datetime
    last_seen_at: datetime


class Sessions:
    def __init__(self, engine: Engine, life: timedelta = LIFE) -> None:
        self._engine = engine
        self._life = life

    def create(self, email: str, source: str, now: datetime) -> str:
        """Open a session; the token goes to the client and is kept nowhere."""
        token = secrets.token_urlsafe(32)
        row = insert(sessions).values(
            token_sha256=_digest(token),
            email=email.strip().lower(),
            source=source,
            created_at=now,
            expires_at=now + self._life,
            last_seen_at=now,
        )
        write(self._engine, lambda connection: connection.execute(row))
        return token

    def lookup(self, token: str, now: datetime) -> Session | None:
        """The session of a token; None: never given out, revoked, or too old."""
        query = select(
            sessions.c.email,
            sessions.c.source,
            sessions.c.created_at,
            sessions.c.expires_at,
            sessions.c.last_seen_at,
        ).where(sessions.c.token_sha256 == _digest(token), sessions.c.expires_at > now)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        if now - row.last_seen_at >= SEEN_EVERY:
            self._saw(token, now)
        return Session(row.email, row.source, row.created_at, row.expires_at, row.last_seen_at)

    def revoke(self, token: str) -> None:
        """End a session. One that isn't there is ended already."""
        query = delete(sessions).where(sessions.c.token_sha256 == _digest(token))
        write(self._engine, lambda connection: connection.execute(query))

    def revoke_all(self, email: str) -> int:
        """End every session of an e-mail address; how many there were."""
        query = delete(sessions).where(sessions.c.email == email.strip().lower())
        return write(self._engine, lambda connection: connection.execute(query).rowcount)

    def prune(self, now: datetime) -> int:
        """Forget expired sessions; how many."""
        query = delete(sessions).where(sessions.c.expires_at <= now)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)

    def _saw(self, token: str, now: datetime) -> None:
        query = update(sessions).where(sessions.c.token_sha256 == _digest(token)).values(last_seen_at=now)
        # A full disk must not keep anybody from looking.
        with suppress(RecordsError):
            write(self._engine, lambda connection: connection.execute(query))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
