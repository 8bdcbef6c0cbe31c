"""A control plane to send requests to: a real store, real records, no worker."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

from argon2 import PasswordHasher
from fastapi import FastAPI
from httpx import Response
from starlette.testclient import TestClient

from api.app import create_app
from api.dependencies import Dependencies
from reconciler.dispatch import Dispatcher
from reconciler.nodes.connection import Connections
from reconciler.operations.requests import Operations
from reconciler.records.admins import Admins
from reconciler.records.database import migrate, open_database
from reconciler.settings import Settings
from reconciler.state import Records, State
from reconciler.store.repository import Author, Repository

EMAIL, PASSWORD = "admin@example.com", "correct horse battery"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKm0qE5bWbOJnJHgWZXvWbJvT8s8kXjP2r0Yh3wq5m1D"
LOCAL = "127.0.0.1"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""The real one takes 0.17 s of a processor for each password; tests/records has it."""


@dataclass
class Clock:
    """The control plane's time, which tests move."""

    ahead: timedelta = timedelta()
    stopped_at: datetime | None = None

    def __call__(self) -> datetime:
        return (self.stopped_at or datetime.now(UTC)) + self.ahead


def node_document(address: str = "192.0.2.1") -> bytes:
    text = f"apiVersion: trueup/v1\nkind: Node\nspec:\n  address: {address}\n  ssh:\n    host_key: {HOST_KEY}\n"
    return text.encode()


def site_documents(slug: str, node: str = "web-1") -> dict[str, bytes]:
    """A site with its production environment, as somebody writes them by hand."""
    site = f"apiVersion: trueup/v1\nkind: Site\nmetadata:\n  name: The {slug}\n"
    environment = f"apiVersion: trueup/v1\nkind: Environment\nspec:\n  type: production\n  node: {node}\n"
    return {
        f"sites/{slug}/site.yaml": site.encode(),
        f"sites/{slug}/environments/production.yaml": environment.encode(),
    }


ONE_NODE: Mapping[str, bytes] = {"nodes/web-1.yaml": node_document()}


@functools.lru_cache(maxsize=4)
def _settings(*environment: tuple[str, str]) -> Settings:
    """Read once for each environment: that takes longer than most tests."""
    return Settings()


@dataclass
class Control:
    """One control plane in a directory, and the application over it."""

    home: Path
    clock: Clock = field(default_factory=Clock)
    initial: Mapping[str, bytes] = field(default_factory=lambda: ONE_NODE)

    def __post_init__(self) -> None:
        settings = self.settings
        engine = open_database(settings.database)
        migrate(engine)
        if settings.store.exists():
            self.repository = Repository(settings.store)
        else:
            self.repository = Repository.init(settings.store, self.initial, Author("Test", "test@example.com"))
        self.records = Records(engine)
        self.records.admins = Admins(engine, QUICK)
        self.state = State(self.repository, self.records)
        dispatcher = Dispatcher(settings.wake_socket)
        self.connections = Connections()
        self.operations = Operations(self.state, dispatcher, self.clock, uuid4)
        self.app: FastAPI = create_app(
            Dependencies(settings, self.state, self.operations, self.connections, self.clock)
        )
        if not self.records.admins.emails():
            self.records.admins.set_password(EMAIL, PASSWORD, self.clock())

    @property
    def settings(self) -> Settings:
        environment = sorted(one for one in os.environ.items() if one[0] != "PYTEST_CURRENT_TEST")
        return _settings(*environment).model_copy(update={"home": self.home})

    def close(self) -> None:
        self.connections.close()
        self.repository.close()
        self.records.engine.dispose()

    def client(self, peer: str = LOCAL, base_url: str = "http://testserver", **headers: str) -> TestClient:
        """A client without a session."""
        return TestClient(
            self.app, base_url, raise_server_exceptions=False, client=(peer, 50000), headers=headers, cookies={}
        )

    def session(self, peer: str = LOCAL) -> TestClient:
        """A client that has logged in."""
        client = self.client(peer)
        client.cookies.set("session_token", self.records.sessions.create(EMAIL, peer, self.clock()))
        return client

    def create_site(self, slug: str) -> tuple[UUID, UUID]:
        """A site made through the API: its id and its production environment's."""
        client = self.session()
        assert client.post("/api/sites", json={"name": f"The {slug}", "slug": slug}).status_code == 202
        site = next(site for site in client.get("/api/sites").json() if site["slug"] == slug)
        return UUID(site["id"]), UUID(site["primary_environment_id"])

    def push(self, path: str, old: str, new: str) -> None:
        """Change a document as a pull request's merge would: with plain Git, from outside."""
        with self._clone() as clone:
            text = (clone / path).read_text(encoding="utf-8")
            assert old in text
            (clone / path).write_text(text.replace(old, new), encoding="utf-8")

    def add(self, documents: Mapping[str, bytes]) -> None:
        """Add documents, as somebody does who writes them by hand."""
        with self._clone() as clone:
            for path, content in documents.items():
                (clone / path).parent.mkdir(parents=True, exist_ok=True)
                (clone / path).write_bytes(content)

    def declare_domain(self, slug: str, hostname: str = "declared.example.com") -> UUID:
        """A domain of the site's production environment, written by hand: its id."""
        path = f"sites/{slug}/environments/production.yaml"
        self.push(path, "\nspec:\n", f"\nspec:\n  domains: [{{hostname: {hostname}}}]\n")
        return next(id_ for id_, (_, one) in self.state.fleet().domains.items() if one.hostname == hostname)

    @contextmanager
    def _clone(self) -> Iterator[Path]:
        identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
        with TemporaryDirectory() as clone:
            subprocess.run(["git", "clone", "-q", str(self.repository.path), clone], check=True)
            yield Path(clone)
            subprocess.run(["git", "add", "-A"], cwd=clone, check=True)
            subprocess.run(["git", *identity, "commit", "-qm", "Change by hand"], cwd=clone, check=True)
            subprocess.run(["git", "push", "-q", "origin", "main"], cwd=clone, check=True)

    def set_status(self, environment_id: UUID, status: str) -> None:
        self.records.statuses.put(environment_id, status, self.clock())


@contextmanager
def control_at(home: Path, **arguments: Any) -> Iterator[Control]:
    control = Control(home, **arguments)
    try:
        yield control
    finally:
        control.close()


def log_in(client: TestClient, email: str = EMAIL, password: str = PASSWORD) -> Response:
    return client.post("/api/login", json={"email": email, "password": password})


def assert_error(response: Response, status: int, code: str) -> str:
    """The response is this error and nothing else; its message."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.json().keys() == {"code", "message"}
    assert response.headers["content-type"] == "application/json"
    message: str = response.json()["message"]
    return message
