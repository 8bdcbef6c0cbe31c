"""The statuses of all environments, which are read again only where one has changed."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine

from reconciler.records.status import EnvironmentStatuses

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Overtaken(EnvironmentStatuses):
    """Another thread always puts back what it had read before."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "_all" or not vars(self).get("_all"):
            super().__setattr__(name, value)


def test_what_another_thread_read_before_is_given_to_nobody(engine: Engine) -> None:
    environment = uuid4()
    statuses = Overtaken(engine)
    statuses.put(environment, "deploying", NOW)
    assert statuses.all()[environment].status == "deploying"
    statuses.put(environment, "active", NOW)
    assert statuses.all()[environment].status == "active"
