"""The last that each node said of itself, and since when it says nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, delete, insert, select, update

from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.records.database import reading, write
from reconciler.records.tables import observations


@dataclass(frozen=True, slots=True)
class Observation:
    """``observed`` is the last answer, however old; ``unreachable`` is set when the last attempt got none."""

    node_id: UUID
    checked_at: datetime
    observed: ObservedNode | None
    unreachable: Unreachable | None

    @property
    def reachable(self) -> bool:
        return self.unreachable is None


class Observations:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def save(self, node_id: UUID, seen: ObservedNode | Unreachable, now: datetime) -> None:
        """Remember what a look at the node gave. A look that is older than the one stored changes nothing.

        An unreachable node keeps its last answer, and ``since`` is the first of the failures in a row.
        """
        write(self._engine, lambda connection: _save(connection, node_id, seen, now))

    def latest(self, node_id: UUID) -> Observation | None:
        """The node's last observation; None: nobody ever looked."""
        with reading(self._engine) as connection:
            row = connection.execute(select(observations).where(observations.c.node_id == node_id)).first()
        return None if row is None else _observation(row)

    def all(self) -> dict[UUID, Observation]:
        """Every node's last observation, by node id."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(observations)).all()
        return {row.node_id: _observation(row) for row in rows}

    def answered_at(self, node_ids: Iterable[UUID]) -> dict[UUID, datetime]:
        """When each node last answered, by its own clock; those that ever did."""
        columns = observations.c
        query = select(columns.node_id, columns.observed_at).where(columns.node_id.in_(node_ids))
        with reading(self._engine) as connection:
            return {row.node_id: row.observed_at for row in connection.execute(query) if row.observed_at}

    def forget(self, node_id: UUID) -> None:
        """The node is gone from the fleet."""
        query = delete(observations).where(observations.c.node_id == node_id)
        write(self._engine, lambda connection: connection.execute(query))


def _save(connection: Connection, node_id: UUID, seen: ObservedNode | Unreachable, now: datetime) -> None:
    known = select(observations.c.checked_at, observations.c.unreachable_since)
    row = connection.execute(known.where(observations.c.node_id == node_id).with_for_update()).first()
    if row is None:
        connection.execute(insert(observations).values(node_id=node_id, checked_at=now, **_values(seen, None)))
    elif row.checked_at <= now:
        values = _values(seen, row.unreachable_since)
        query = update(observations).where(observations.c.node_id == node_id)
        connection.execute(query.values(checked_at=now, **values))


def _values(seen: ObservedNode | Unreachable, unreachable_since: datetime | None) -> dict[str, Any]:
    if isinstance(seen, Unreachable):
        return {"unreachable_since": unreachable_since or seen.since, "unreachable_reason": seen.reason}
    return {
        # Who logged in is kept by itself.
        "observed": seen.model_dump_json(exclude={"logins"}),
        "observed_at": seen.observed_at,
        "unreachable_since": None,
        "unreachable_reason": None,
    }


def _understood(text: str) -> ObservedNode | None:
    """None for what an earlier version took from a node, and no answer may be any more: the next look tells."""
    try:
        return ObservedNode.model_validate_json(text)
    except ValidationError:
        return None


def _observation(row: Any) -> Observation:
    observed = None if row.observed is None else _understood(row.observed)
    unreachable = None
    if row.unreachable_since is not None:
        unreachable = Unreachable(since=row.unreachable_since, reason=row.unreachable_reason)
    return Observation(row.node_id, row.checked_at, observed, unreachable)
