"""How fast passwords may be tried: slower and slower, per source address and in total, across restarts.

An attempt counts as failed before its password is looked at, so a hundred at once gain nothing; a success takes
that back. A source that logged in lately is not slowed by what others do: an attacker with many addresses cannot
lock the admin out of where the admin works.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil

from sqlalchemy import Connection, Engine, delete, insert, select, update

from reconciler.records.database import reading, write
from reconciler.records.tables import login_attempts

EVERYBODY = "everybody"
"""The row of the total, which the migration inserts: locked first, it puts attempts in order."""

KNOWN_FOR = timedelta(days=30)
"""How long after a success a source is not slowed by the others' failures."""


@dataclass(frozen=True, slots=True)
class Slowing:
    """``free`` failures cost nothing; each further one doubles the wait, from 1 s to ``longest``.

    For each ``forgive`` that passes, one failure is forgotten.
    """

    free: int
    longest: timedelta
    forgive: timedelta

    def wait(self, failures: int) -> timedelta:
        """How long to wait after that many failures."""
        if failures < self.free:
            return timedelta(0)
        return min(timedelta(seconds=2 ** min(failures - self.free, 30)), self.longest)

    def left(self, failures: int, since: timedelta) -> int:
        """How many failures are not forgotten after that much time."""
        return max(0, failures - max(0, since // self.forgive))


PER_SOURCE = Slowing(free=5, longest=timedelta(minutes=15), forgive=timedelta(minutes=30))
IN_TOTAL = Slowing(free=50, longest=timedelta(seconds=30), forgive=timedelta(minutes=1))


@dataclass(frozen=True, slots=True)
class _Count:
    failures: int
    counted_at: datetime
    blocked_until: datetime
    succeeded_at: datetime | None


class LoginAttempts:
    def __init__(self, engine: Engine, per_source: Slowing = PER_SOURCE, in_total: Slowing = IN_TOTAL) -> None:
        self._engine = engine
        self._per_source = per_source
        self._in_total = in_total

    def begin(self, source: str, now: datetime) -> int:
        """Ask before looking at a password. 0: go on, the attempt is counted. Else: refuse, for that many seconds."""
        return write(self._engine, lambda connection: self._begin(connection, _grouped(source), now))

    def wait(self, source: str, now: datetime) -> int:
        """For how many seconds this source's own failures slow it; 0: not at all. Counts nothing."""
        query = select(login_attempts.c.blocked_until).where(login_attempts.c.source == _grouped(source))
        with reading(self._engine) as connection:
            until: datetime | None = connection.execute(query).scalar()
        return max(0, ceil((until - now).total_seconds())) if until else 0

    def succeeded(self, source: str, now: datetime) -> None:
        """The password was right: forget the source's failures, and the one that ``begin`` counted in total."""

        def work(connection: Connection) -> None:
            everybody = _count(connection, EVERYBODY, now)
            less = max(0, everybody.failures - 1)
            _store(connection, EVERYBODY, _Count(less, everybody.counted_at, everybody.blocked_until, None))
            _store(connection, _grouped(source), _Count(0, now, now, now))

        write(self._engine, work)

    def prune(self, before: datetime) -> int:
        """Forget sources without an attempt since then; how many."""
        columns = login_attempts.c
        old = columns.source != EVERYBODY, columns.counted_at < before, columns.blocked_until < before
        query = delete(login_attempts).where(*old)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)

    def _begin(self, connection: Connection, source: str, now: datetime) -> int:
        everybody = _count(connection, EVERYBODY, now)
        own = _count(connection, source, now)
        known = own.succeeded_at is not None and now - own.succeeded_at <= KNOWN_FOR
        until = own.blocked_until if known else max(own.blocked_until, everybody.blocked_until)
        if until > now:
            return ceil((until - now).total_seconds())
        _store(connection, EVERYBODY, _failed(everybody, self._in_total, now))
        _store(connection, source, _failed(own, self._per_source, now))
        return 0


def _failed(count: _Count, slowing: Slowing, now: datetime) -> _Count:
    failures = slowing.left(count.failures, now - count.counted_at) + 1
    return _Count(failures, now, max(now + slowing.wait(failures), count.blocked_until), count.succeeded_at)


def _count(connection: Connection, source: str, now: datetime) -> _Count:
    columns = login_attempts.c
    query = select(columns.failures, columns.counted_at, columns.blocked_until, columns.succeeded_at)
    row = connection.execute(query.where(columns.source == source).with_for_update()).first()
    return _Count(0, now, now, None) if row is None else _Count(*row)


def _store(connection: Connection, source: str, count: _Count) -> None:
    values = {
        "failures": count.failures,
        "counted_at": count.counted_at,
        "blocked_until": count.blocked_until,
        "succeeded_at": count.succeeded_at,
    }
    query = update(login_attempts).where(login_attempts.c.source == source).values(values)
    if connection.execute(query).rowcount == 0:
        connection.execute(insert(login_attempts).values(source=source, **values))


def _grouped(source: str) -> str:
    """Who counts as one source: an IPv4 address, or an IPv6 network of 64 bits, which one customer has whole."""
    try:
        address = ip_address(source)
    except ValueError:
        return f"other {source[:200]}"
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), 64), strict=False))
