"""Every answer that the contract names, asked for and held against its schema."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import Response
from starlette.testclient import TestClient

from reconciler.loop.following import Following
from reconciler.operations.hooks import make_key
from reconciler.records.idempotency import Key
from reconciler.records.jobs import NewJob
from tests.api.control import EMAIL, PASSWORD, Control, control_at
from tests.api.promotable import PLATFORM, change_code, promotable
from tests.api.reports import make_report
from tests.contract.document import Operation, built, resolve, validator

UNREACHED = {(operation.key, 500) for operation in built()} | {
    ("POST /environments/{id}/drift-check", 409),
    ("POST /environments/{id}/health-check", 409),
    # It takes a node to answer: tests/operations/test_magic_login.py.
    ("POST /environments/{id}/magic-login", 200),
    # It takes a copy, and a node that does not answer: tests/operations/test_held.py.
    ("GET /environments/{id}/held", 502),
    ("POST /environments/{id}/held/release", 502),
    # It takes a node that has two releases: tests/operations/test_deploy.py.
    ("POST /environments/{id}/rollback", 202),
    # It takes storage that has a backup: tests/operations/test_backups.py.
    ("POST /environments/{id}/restore", 202),
    ("POST /environments/{id}/restore", 409),
    # It takes storage that has a backup: tests/operations/test_drills.py.
    ("POST /environments/{id}/drill", 202),
    # The only environment here is production, which goes with its site: tests/operations/test_removal.py.
    ("DELETE /sites/{id}", 202),
    ("DELETE /environments/{id}", 202),
}
"""Answers that nothing a client does brings about here: bugs of ours, and what needs a real node."""

CASES = [
    (operation, status)
    for operation in built()
    for status in sorted(operation.responses)
    if (operation.key, status) not in UNREACHED
]

ARCHIVE = {"content": b"\x1f\x8b archive", "headers": {"Content-Type": "application/octet-stream"}}
GOOD_BODIES: dict[str, dict[str, Any]] = {
    "POST /login": {"email": EMAIL, "password": PASSWORD},
    "POST /sites": {"name": "Globex", "slug": "globex"},
    "POST /sites/{id}/import": {"archive_url": "https://example.com/site.tar.gz"},
    "POST /sites/{id}/environments": {"name": "Try", "slug": "try", "type": "staging"},
    "POST /environments/{id}/promote": {"target_environment_id": str(uuid4())},
    "POST /environments/{id}/deploy": {"source_type": "upload", "source_ref": "https://example.com/site.tar.gz"},
    "POST /environments/{id}/rollback": {},
    "POST /environments/{id}/backups": {"backup_scope": "full"},
    "POST /environments/{id}/updates": {"scope": "all"},
    "POST /environments/{id}/held/release": {},
    "POST /environments/{id}/search-replace": {"from": "Acme", "to": "Globex", "dry_run": False},
    "POST /environments/{id}/restore": {"backup_id": "00000000-0000-4000-8000-000000000000"},
    "POST /environments/{id}/domains": {"hostname": "shop.example.com"},
    "PATCH /environments/{id}/cache": {"fastcgi_cache_enabled": False},
}


@dataclass
class World:
    """A control plane with the site acme, and a client that has logged in."""

    control: Control
    site_id: UUID
    environment_id: UUID
    job_id: UUID
    report_id: UUID
    client: TestClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.control.session()

    def id_for(self, operation: Operation) -> UUID:
        noun = operation.path.split("/")[1]
        if noun == "domains":
            return self.control.declare_domain("acme")
        known = {"sites": self.site_id, "environments": self.environment_id, "jobs": self.job_id}
        return {**known, "drift-reports": self.report_id}[noun]

    def ask(self, operation: Operation, client: TestClient | None = None, id: object = None, **given: Any) -> Response:
        """The operation with a good request, but for what is given otherwise."""
        url = operation.url.replace("{id}", str(id or (self.id_for(operation) if operation.has_id else "")))
        if operation.path == "/hooks/{forge}":
            url = url.replace("{forge}", str(id or "gitlab"))
            key = make_key(self.control.settings) if given.pop("set_up", True) else ""
            given["headers"] = {"X-Gitlab-Token": "wrong" if client else key, **given.get("headers", {})}
        if operation.path == "/uploads" and "json" not in given and "content" not in given:
            given["content"] = ARCHIVE["content"]
            given["headers"] = {**ARCHIVE["headers"], **given.get("headers", {})}
        if operation.path.endswith("/promotion"):
            given.setdefault("params", {"target": str(self.environment_id)})
        if "json" not in given and "content" not in given and operation.key in GOOD_BODIES:
            given["json"] = GOOD_BODIES[operation.key]
        return (client or self.client).request(operation.method, url, **given)


@dataclass(frozen=True)
class Ready:
    """A home to copy, and what there is in it."""

    home: Path
    ids: tuple[UUID, UUID, UUID, UUID]


@pytest.fixture(scope="session")
def ready(fresh_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    home = tmp_path_factory.mktemp("ready") / "home"
    shutil.copytree(fresh_home, home)
    with control_at(home) as control:
        site_id, environment_id = control.create_site("acme")
        job_id = control.records.jobs.page().jobs[0].id
        return Ready(home, (site_id, environment_id, job_id, make_report(control)))


@pytest.fixture
def world(ready: Ready, tmp_path: Path) -> Iterator[World]:
    home = tmp_path / "home"
    shutil.copytree(ready.home, home)
    with control_at(home) as control:
        yield World(control, *ready.ids)


def bad_request(world: World, operation: Operation) -> Response:
    if operation.takes("cursor"):
        return world.ask(operation, params={"cursor": "made up"})
    if operation.has_id or operation.path == "/hooks/{forge}":
        return world.ask(operation, id="no-uuid")
    return world.ask(operation, json={"surprise": 1})


def no_session(world: World, operation: Operation) -> Response:
    given = {"json": {"email": EMAIL, "password": "wrong"}} if operation.path == "/login" else {}
    return world.ask(operation, client=world.control.client(), **given)


def key_used_for_another(world: World, operation: Operation) -> Response:
    key = {"Idempotency-Key": "one"}
    assert world.client.post("/api/sites", json={"name": "Other", "slug": "other"}, headers=key).status_code == 202
    return world.ask(operation, headers=key)


def moved(world: World, operation: Operation) -> Response:
    return world.ask(operation, headers={"If-Match": '"0-00000000"'})


def unchanged(world: World, operation: Operation) -> Response:
    return world.ask(operation, headers={"If-None-Match": world.ask(operation).headers["etag"]})


def nothing_more(world: World, operation: Operation) -> Response:
    world.client.post(f"/api/jobs/{world.job_id}/cancel")
    seen = str(world.ask(operation).json()[-1]["number"])
    return world.ask(operation, headers={"Accept": "text/event-stream", "Last-Event-ID": seen})


def foreign_origin(world: World, operation: Operation) -> Response:
    return world.ask(operation, headers={"Origin": "https://evil.example"})


def unknown_id(world: World, operation: Operation) -> Response:
    if operation.path == "/hooks/{forge}":
        return world.ask(operation, set_up=False)
    return world.ask(operation, id=uuid4())


def conflict(world: World, operation: Operation) -> Response:
    if operation.path in {"/uploads", "/drift-reports"}:
        return key_in_use(world, operation)
    if operation.path.endswith("/reset"):
        return world.ask(operation)
    if operation.path.endswith("/cancel"):
        world.control.records.jobs.reject(world.job_id, "JOB_CONFLICT", "no", world.control.clock())
        return world.ask(operation)
    if operation.path == "/sites":
        return world.ask(operation, json={"name": "Acme", "slug": "acme"})
    if operation.path.endswith("/promote"):
        return world.ask(operation, json={"target_environment_id": str(world.environment_id)})
    if operation.path.endswith(("/cache", "/environments")):
        world.control.set_status(world.environment_id, "failed")
    else:
        world.control.push("sites/acme/environments/production.yaml", "spec:\n", "spec:\n  reconcile: {mode: paused}\n")
    return world.ask(operation)


def key_in_use(world: World, operation: Operation) -> Response:
    """The first request's job is not committed yet, and never will be."""
    said = "POST /api/drift-reports?\n"
    if operation.path == "/uploads":
        said = f"POST /api/uploads {sha256(ARCHIVE['content']).hexdigest()}"
    key = Key(EMAIL, "one", sha256(said.encode()).hexdigest())
    first = NewJob(id=uuid4(), job_type="deploy", declared=True, key=key)
    world.control.records.jobs.enqueue(first, world.control.clock())
    return world.ask(operation, headers={"Idempotency-Key": "one"})


def accepted(world: World, operation: Operation) -> Response:
    world.control.set_status(world.environment_id, "failed" if operation.path.endswith("/reset") else "active")
    if operation.path.endswith("/promote"):
        staging = promotable(world.control, "acme", world.environment_id)
        return world.ask(operation, id=staging, json={"target_environment_id": str(world.environment_id)})
    if operation.path.endswith(("/backups", "/import", "/updates", "/discard", "/search-replace")):
        world.control.add({"platform.yaml": PLATFORM})
    if "/drift/" in operation.path:
        change_code(world.control, world.environment_id)
    return world.ask(operation)


def made(world: World, operation: Operation) -> Response:
    """At once, without a job."""
    if operation.path.endswith("/branch"):
        world.control.set_status(world.environment_id, "active")
        change_code(world.control, world.environment_id)
        upstream = world.control.home / "upstream.git"
        subprocess.run(["git", "init", "-q", "--bare", "--initial-branch=main", str(upstream)], check=True)
        settings = world.control.settings.model_copy(update={"upstream": f"file://{upstream}"})
        assert Following(settings, world.control.state, world.control.clock).look().state == "in-step"
        app = world.control.app.state
        app.dependencies = replace(app.dependencies, settings=settings)
    return world.ask(operation)


def at_once(world: World, operation: Operation) -> Response:
    if operation.path.endswith("/promotion"):
        # With a preview in it, every field of the schema is looked at.
        staging = promotable(world.control, "acme", world.environment_id)
        answer = world.ask(operation, id=staging)
        assert answer.json()["preview"]["left_behind"]
        return answer
    if operation.path.endswith("/held/release"):
        world.control.set_status(world.environment_id, "active")
    return world.ask(operation)


def unreachable_node(world: World, operation: Operation) -> Response:
    world.control.set_status(world.environment_id, "active")
    return world.ask(operation)


def too_large(world: World, operation: Operation) -> Response:
    if operation.path in {"/uploads", "/hooks/{forge}"}:
        return world.ask(operation, headers={"Content-Length": str(2 << 40)})
    return world.ask(operation, content=b" " * (64 * 1024 + 1), headers={"Content-Type": "application/json"})


def too_many(world: World, operation: Operation) -> Response:
    if operation.path == "/login":
        given: dict[str, Any] = {"json": {"email": EMAIL, "password": "wrong"}}
    else:
        given = {"headers": {"Authorization": "Bearer trueup_wrong"}}
    return next(answer for _ in range(20) if (answer := world.ask(operation, **given)).status_code == 429)


def full_disk(world: World, operation: Operation) -> Response:
    """A file system of one MiB stands in for a full one: it has less free than is always left free."""
    uploads = world.control.home / "uploads"
    uploads.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(uploads)], check=True)
    try:
        return world.ask(operation)
    finally:
        subprocess.run(["umount", "-l", str(uploads)], check=True)


def broken_database(world: World, operation: Operation) -> Response:
    if operation.path == "/hooks/{forge}":
        # It needs no database, but to write down that it came.
        (world.control.home / "upstream.asked").mkdir()
        return world.ask(operation)
    path = world.control.home / "trueup.db"
    world.control.records.engine.dispose()
    with path.open("r+b") as file:
        file.write(os.urandom(4096))
    return world.ask(operation)


WAYS: dict[int, Callable[[World, Operation], Response]] = {
    204: nothing_more,
    304: unchanged,
    412: moved,
    422: key_used_for_another,
    200: at_once,
    201: made,
    202: accepted,
    400: bad_request,
    401: no_session,
    403: foreign_origin,
    404: unknown_id,
    409: conflict,
    413: too_large,
    429: too_many,
    502: unreachable_node,
    503: broken_database,
    507: full_disk,
}


ALIKE = {401: 4, 429: 4, 503: 4}
"""One place answers these for all operations: `make test` asks one operation in so many for them."""
OPERATIONS = [operation.key for operation in built()]


def _is_short(operation: Operation, status: int) -> bool:
    return OPERATIONS.index(operation.key) % ALIKE.get(status, 1) == 0


@pytest.mark.parametrize(
    ("operation", "status"),
    [pytest.param(*case, marks=[] if _is_short(*case) else [pytest.mark.long]) for case in CASES],
    ids=lambda part: getattr(part, "key", part),
)
def test_answer(world: World, operation: Operation, status: int) -> None:
    response = WAYS[status](world, operation)
    assert response.status_code == status, response.text
    assert response.headers["cache-control"] == "no-store"
    if "content" in operation.responses[status]:
        assert response.headers["content-type"] == "application/json"
        schema = operation.response_schema(status)
        validator(schema).validate(response.json())
        assert surplus(response.json(), schema) == set()
    else:
        assert response.content == b""
    for name, header in operation.responses[status].get("headers", {}).items():
        if resolve(header).get("required"):
            validator(resolve(header)["schema"]).validate(typed(response.headers[name]))


def surplus(value: Any, schema: dict[str, Any]) -> set[str]:
    """Fields that the contract doesn't know."""
    schema = resolve(schema)
    if isinstance(value, list):
        return {name for one in value for name in surplus(one, schema["items"])}
    return set(value) - set(schema["properties"]) if "properties" in schema else set()


def typed(header: str) -> str | int:
    return int(header) if header.isdecimal() else header


def test_location_answers_the_job(world: World) -> None:
    response = world.client.post("/api/sites", json={"name": "Globex", "slug": "globex"})
    job = world.client.get(response.headers["location"]).json()
    assert job["id"] == response.json()["job_id"]
    assert (job["job_type"], job["status"]) == ("site-create", "queued")


def test_broken_store_is_503_and_tells_nothing_of_the_host(world: World) -> None:
    world.control.repository.close()
    (world.control.home / "store.git").rename(world.control.home / "elsewhere.git")
    response = world.client.get("/api/sites")
    assert (response.status_code, response.json()["code"]) == (503, "store_error")
    assert str(world.control.home) not in response.text
