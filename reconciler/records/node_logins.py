"""Who logged in on a node by ssh, as its journal told at each look; a hint at who changed something there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, delete, insert, select

from reconciler.core.observed import SshLogin
from reconciler.records.database import reading, write
from reconciler.records.tables import node_logins


class NodeLogins:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def save(self, node_id: UUID, logins: Iterable[SshLogin]) -> None:
        """Keep those that are not kept yet: two looks may tell of the same."""
        told = {(login.at, login.user): login for login in logins}
        if told:
            write(self._engine, lambda connection: _save(connection, node_id, list(told.values())))

    def since(self, moment: datetime) -> dict[UUID, list[SshLogin]]:
        """All that came after then, by node, oldest first."""
        columns = node_logins.c
        query = select(node_logins).where(columns.at >= moment).order_by(columns.at)
        found: dict[UUID, list[SshLogin]] = {}
        with reading(self._engine) as connection:
            for row in connection.execute(query):
                login = SshLogin(at=row.at, user=row.user, address=row.address, key=row.key)
                found.setdefault(row.node_id, []).append(login)
        return found

    def prune(self, before: datetime) -> int:
        """Forget those from before then; how many."""
        query = delete(node_logins).where(node_logins.c.at < before)
        return write(self._engine, lambda connection: connection.execute(query).rowcount)


def _save(connection: Connection, node_id: UUID, logins: list[SshLogin]) -> None:
    columns = node_logins.c
    first = min(login.at for login in logins)
    kept = select(columns.at, columns.user).where(columns.node_id == node_id, columns.at >= first)
    known = {(row.at, row.user) for row in connection.execute(kept)}
    rows = [
        {"node_id": node_id, "at": one.at, "user": one.user, "address": one.address, "key": one.key}
        for one in logins
        if (one.at, one.user) not in known
    ]
    if rows:
        connection.execute(insert(node_logins), rows)
