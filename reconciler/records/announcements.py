"""What the forge is to be told of each of upstream's commits, and what of it the forge has taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from reconciler.core.announcing import Target, Told
from reconciler.records.database import reading, write
from reconciler.records.tables import announcements

NO_REQUEST = 0
"""In place of a request's number: the commit came by none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Of one commit."""

    commit: str
    taken_at: datetime
    held: Told | None
    """Said of it instead of anything else, while it is not taken over."""
    targets: tuple[Target, ...] | None
    """What it changes; None: not looked at yet."""
    told: Told | None
    """What holds now; None: not looked at yet."""
    sent: Told | None
    """What the forge took as the commit's status."""
    request: int | None
    """The request that it came by; ``NO_REQUEST``: none, None: not asked yet."""
    commented: str | None
    """sha256 of what was said on the request."""
    is_open: bool
    """Whether anything of it may still change."""
    attempts: int
    """How many in a row failed."""
    next_attempt_at: datetime
    error: str | None
    """Why the last attempt failed."""


class Announcements:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take(self, commits: Iterable[str], now: datetime) -> None:
        """These are about to be taken over; one that was held, or told of before, is begun anew."""
        listed, values = list(commits), {**_BLANK, "taken_at": now, "next_attempt_at": now}

        def begin(connection: Connection) -> None:
            for commit in listed:
                _begin(connection, commit, values)

        write(self._engine, begin)

    def hold(self, commit: str, told: Told, now: datetime) -> None:
        """This one was fetched and is not applied. Saying so again changes nothing."""
        values = {"held": _data(told)}
        write(self._engine, lambda connection: _hold(connection, commit, values, now))

    def release(self) -> None:
        """Nothing is held any more."""
        query = update(announcements).where(announcements.c.held.is_not(None)).values(held=None, is_open=True)
        write(self._engine, lambda connection: connection.execute(query))

    def open(self) -> list[Announcement]:
        """Those that may still change, oldest first."""
        return self._all(announcements.c.is_open.is_(True))

    def latest(self, most: int = 5) -> list[Announcement]:
        """The newest, newest first."""
        query = select(announcements).order_by(announcements.c.taken_at.desc(), announcements.c.commit).limit(most)
        with reading(self._engine) as connection:
            return [_announcement(row) for row in connection.execute(query)]

    def change(self, commit: str, **values: Any) -> None:
        """Keep what was found or done."""
        kept = {name: _plain(value) for name, value in values.items()}
        query = update(announcements).where(announcements.c.commit == commit).values(**kept)
        write(self._engine, lambda connection: connection.execute(query))

    def prune(self, before: datetime) -> int:
        """Forget those that were taken over before then; how many."""
        query = delete(announcements).where(announcements.c.taken_at < before)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)

    def _all(self, wanted: Any) -> list[Announcement]:
        query = select(announcements).where(wanted)
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(announcements.c.taken_at, announcements.c.commit))
            return [_announcement(row) for row in rows]


_BLANK: Mapping[str, Any] = {
    "held": None,
    "targets": None,
    "told": None,
    "sent": None,
    "request": None,
    "commented": None,
    "is_open": True,
    "attempts": 0,
    "error": None,
}


def _begin(connection: Connection, commit: str, values: Mapping[str, Any]) -> None:
    columns = announcements.c
    known = connection.execute(select(columns.held).where(columns.commit == commit).with_for_update()).first()
    if known is None:
        connection.execute(insert(announcements).values(commit=commit, **values))
    elif known.held is not None:
        # What the forge was told stays known: it is told something else only where that is something else.
        kept = {name: value for name, value in values.items() if name not in {"sent", "request", "commented"}}
        connection.execute(update(announcements).where(columns.commit == commit).values(**kept))


def _hold(connection: Connection, commit: str, values: Mapping[str, Any], now: datetime) -> None:
    columns = announcements.c
    known = connection.execute(select(columns.held).where(columns.commit == commit).with_for_update()).first()
    if known is None:
        blank = {**_BLANK, "taken_at": now, "next_attempt_at": now}
        connection.execute(insert(announcements).values(commit=commit, **{**blank, **values}))
    elif known.held != values["held"]:
        query = update(announcements).where(columns.commit == commit)
        connection.execute(query.values(**values, is_open=True))


def _data(value: Told | Target) -> dict[str, Any]:
    return value.model_dump(mode="json")


def _plain(value: Any) -> Any:
    if isinstance(value, Told):
        return _data(value)
    return [_data(one) for one in value] if isinstance(value, tuple) else value


def _told(data: Any) -> Told | None:
    return None if data is None else Told.model_validate(data)


def _announcement(row: Any) -> Announcement:
    targets = None if row.targets is None else tuple(Target.model_validate(one) for one in row.targets)
    held, told, sent = (_told(data) for data in (row.held, row.told, row.sent))
    rest = ("commit", "taken_at", "request", "commented", "is_open", "attempts", "next_attempt_at", "error")
    given = {name: getattr(row, name) for name in rest}
    return Announcement(targets=targets, held=held, told=told, sent=sent, **given)
