"""Who may log in: e-mail addresses with argon2id hashes of their passwords."""

from __future__ import annotations

import secrets
from datetime import datetime
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Engine, delete, insert, select, update

from reconciler.core.errors import Invalid
from reconciler.records.database import reading, write
from reconciler.records.tables import admins, sessions

SHORTEST = 12
LONGEST = 1024


class Admins:
    def __init__(self, engine: Engine, hasher: PasswordHasher | None = None) -> None:
        self._engine = engine
        self._hasher = hasher or PasswordHasher()

    def set_password(self, email: str, password: str, now: datetime) -> None:
        """Make the admin or change the password; either way end all sessions of that e-mail address."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise Invalid(
                f"The password has {len(password)} characters. Choose one with {SHORTEST} to {LONGEST} of them."
            )
        hashed = self._hasher.hash(password)

        def work(connection: Connection) -> None:
            _store(connection, _canonical(email), hashed, now)
            connection.execute(delete(sessions).where(sessions.c.email == _canonical(email)))

        write(self._engine, work)

    def verify(self, email: str, password: str, now: datetime) -> bool:
        """Whether the password is that admin's; as much work for an unknown e-mail address as for a known one."""
        query = select(admins.c.password_hash).where(admins.c.email == _canonical(email))
        with reading(self._engine) as connection:
            known: str | None = connection.execute(query).scalar()
        decoy = self._decoy  # made by the first login, whoever that is
        right = self._matches(known or decoy, password[:LONGEST]) and known is not None
        if right and known is not None and self._hasher.check_needs_rehash(known):
            self._rehash(_canonical(email), known, password, now)
        return right and len(password) <= LONGEST

    def emails(self) -> list[str]:
        """Every admin's e-mail address, in order."""
        with reading(self._engine) as connection:
            return list(connection.execute(select(admins.c.email).order_by(admins.c.email)).scalars())

    @cached_property
    def _decoy(self) -> str:
        """What a password is held against where nobody has that e-mail address."""
        return self._hasher.hash(secrets.token_urlsafe())

    def _matches(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    def _rehash(self, email: str, known: str, password: str, now: datetime) -> None:
        # Only over the hash that was verified: the password may have been changed meanwhile.
        query = update(admins).where(admins.c.email == email, admins.c.password_hash == known)
        query = query.values(password_hash=self._hasher.hash(password), updated_at=now)
        write(self._engine, lambda connection: connection.execute(query))


def _canonical(email: str) -> str:
    return email.strip().lower()


def _store(connection: Connection, email: str, hashed: str, now: datetime) -> None:
    values = {"password_hash": hashed, "updated_at": now}
    if connection.execute(update(admins).where(admins.c.email == email).values(values)).rowcount == 0:
        connection.execute(insert(admins).values(email=email, created_at=now, **values))
