"""Bearer tokens for scripts and CI: kept as hashes, so that nobody who reads the database can use one."""

from __future__ import annotations

import hashlib
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from reconciler.core.errors import Conflict, Invalid, NotFound, RecordsError
from reconciler.records.database import reading, write
from reconciler.records.tables import tokens

START = "trueup_"
"""What every token begins with, so that people and scanners know one when they see it."""
SEEN_EVERY = timedelta(minutes=1)
"""How exact ``last_used_at`` is."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is remembered: ``prefix`` is how it begins, and all of it that is kept."""

    name: str
    prefix: str
    read_only: bool
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class Tokens:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, name: str, by: str, now: datetime, *, expires_at: datetime | None = None, read_only: bool = False
    ) -> str:
        """A new token, which is kept nowhere.

        Raises:
            Conflict: the name is taken, by a revoked one perhaps: the audit log tells tokens apart by it.
        """
        if not _NAME.fullmatch(name):
            raise Invalid(f"{name!r} is no name for a token. Use lower-case letters, digits, dots and dashes.")
        if expires_at is not None and expires_at <= now:
            raise Invalid(f"The token would have expired at {expires_at.isoformat()}. Give a time to come.")
        token = START + secrets.token_urlsafe(32)
        row: dict[str, Any] = {"name": name, "token_sha256": _digest(token), "prefix": token[: len(START) + 5]}
        row |= {"read_only": read_only, "created_by": by, "created_at": now, "expires_at": expires_at}

        def work(connection: Connection) -> None:
            if connection.execute(select(tokens.c.name).where(tokens.c.name == name)).first():
                raise Conflict(f"A token is or was named {name}. Choose another name.")
            connection.execute(insert(tokens).values(row))

        write(self._engine, work)
        return token

    def lookup(self, token: str, now: datetime) -> Token | None:
        """The token; None: never given out, revoked, or expired."""
        query = select(*_told()).where(tokens.c.token_sha256 == _digest(token), tokens.c.revoked_at.is_(None))
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None or (row.expires_at is not None and row.expires_at <= now):
            return None
        if row.last_used_at is None or now - row.last_used_at >= SEEN_EVERY:
            self._used(row.name, now)
        return Token(**row._mapping)

    def all(self) -> list[Token]:
        """Every token there is or was, by name."""
        with reading(self._engine) as connection:
            return [Token(**row._mapping) for row in connection.execute(select(*_told()).order_by(tokens.c.name))]

    def revoke(self, name: str, now: datetime) -> None:
        """End a token, at once and for good. One that is revoked stays so."""
        query = update(tokens).where(tokens.c.name == name, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
        if write(self._engine, lambda connection: connection.execute(query).rowcount):
            return
        if name not in {token.name for token in self.all()}:
            raise NotFound(f"No token is named {name}. `trueup admin token list` shows them.")

    def _used(self, name: str, now: datetime) -> None:
        query = update(tokens).where(tokens.c.name == name).values(last_used_at=now)
        # A full disk must not keep anybody from looking.
        with suppress(RecordsError):
            write(self._engine, lambda connection: connection.execute(query))


def _told() -> list[Any]:
    return [tokens.c[name] for name in Token.__slots__]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
