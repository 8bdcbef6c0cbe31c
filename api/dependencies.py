"""What the routes work with. ``create_app`` gets it whole; a route takes what it needs by annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import Depends, Request

from api.clients import Client
from reconciler.nodes.connection import Connections
from reconciler.operations.requests import Operations
from reconciler.settings import Settings
from reconciler.state import Records, State


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Dependencies:
    """The control plane as the API sees it."""

    settings: Settings
    state: State
    operations: Operations
    connections: Connections
    now: Callable[[], datetime] = _now

    @property
    def records(self) -> Records:
        return self.state.records


def _dependencies(request: Request) -> Dependencies:
    return cast(Dependencies, request.app.state.dependencies)


def _client(request: Request) -> Client:
    return cast(Client, request.state.client)


Deps = Annotated[Dependencies, Depends(_dependencies)]
Sender = Annotated[Client, Depends(_client)]
