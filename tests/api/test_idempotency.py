"""The same request with the same key makes one job, whatever happens in between."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from httpx import Response
from sqlalchemy import update
from starlette.testclient import TestClient

from reconciler.records.database import writing
from reconciler.records.tables import jobs
from tests.api.control import Control, assert_error, control_at
from tests.api.promotable import PLATFORM

SITE = {"name": "Acme", "slug": "acme"}


def create(client: TestClient, key: str = "one", **body: str) -> Response:
    return client.post("/api/sites", json=SITE | body, headers={"Idempotency-Key": key})


def test_the_same_again_is_answered_as_before(control: Control, client: TestClient) -> None:
    first, again = create(client), create(client)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.headers["location"] == again.headers["location"]
    assert len(client.get("/api/jobs").json()) == 1
    assert_error(create(client, "two"), 409, "conflict")


def test_another_request_with_the_key_is_refused(client: TestClient) -> None:
    create(client)
    assert_error(create(client, slug="other"), 422, "idempotency_key_reused")
    environment = client.get("/api/sites").json()[0]["primary_environment_id"]
    purge = f"/api/environments/{environment}/cache/purge"
    assert_error(client.post(purge, headers={"Idempotency-Key": "one"}), 422, "idempotency_key_reused")
    assert [site["slug"] for site in client.get("/api/sites").json()] == ["acme"]


def test_a_refusal_is_not_remembered(control: Control, client: TestClient) -> None:
    [node] = control.state.fleet().nodes.values()
    control.push(node.path, "spec:\n", "spec:\n  state: decommissioned\n")
    assert_error(create(client), 409, "no_node_available")
    control.push(node.path, "  state: decommissioned\n", "")
    assert create(client).status_code == 202


def test_each_has_keys_of_its_own_and_they_live_a_day(control: Control, client: TestClient) -> None:
    first = create(client).json()
    secret = control.records.tokens.create("ci", "grace", control.clock())
    other = control.client(Authorization=f"Bearer {secret}")
    assert_error(create(other), 409, "conflict")
    control.clock.ahead = timedelta(hours=23)
    assert create(control.session()).json() == first
    control.clock.ahead = timedelta(hours=25)
    assert create(control.session(), slug="other").json() != first


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "käse"])
def test_keys_that_cannot_be(client: TestClient, key: str) -> None:
    response = client.post("/api/sites", json=SITE, headers=[(b"Idempotency-Key", key.encode())])
    assert_error(response, 400, "invalid_request")


@pytest.mark.parametrize("path", ["cache/purge", "drift-check", "backups", "deploy"])
def test_jobs_of_every_kind(control: Control, client: TestClient, path: str) -> None:
    _, environment = control.create_site("acme")
    control.set_status(environment, "active")
    control.add({"platform.yaml": PLATFORM})
    bodies: dict[str, Any] = {
        "backups": {"backup_scope": "db"},
        "deploy": {"source_type": "upload", "source_ref": "https://example.com/site.tar.gz"},
    }

    def ask() -> Response:
        url = f"/api/environments/{environment}/{path}"
        return client.post(url, json=bodies.get(path, {}), headers={"Idempotency-Key": "one"})

    answers = [ask(), ask()]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert len(client.get("/api/jobs").json()) == 2


def test_an_upload_is_kept_once(control: Control, client: TestClient) -> None:
    def send(content: bytes) -> Response:
        headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": "one"}
        return client.post("/api/uploads", content=content, headers=headers)

    first, again = send(b"\x1f\x8b one"), send(b"\x1f\x8b one")
    assert (first.status_code, again.status_code, first.json()) == (201, 201, again.json())
    assert_error(send(b"\x1f\x8b two"), 422, "idempotency_key_reused")
    kept = {path.stem for path in (control.home / "uploads").iterdir()}
    assert kept == {first.json()["upload_id"]}


def test_of_many_at_once_one_makes_a_job_and_the_others_hear_of_it_or_of_its_making(control: Control) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: create(control.session()), range(16)))
    codes = {answer.json().get("code") for answer in answers if answer.status_code != 202}
    assert codes <= {"idempotency_key_in_use"}
    assert len({answer.json()["job_id"] for answer in answers if answer.status_code == 202}) == 1
    assert len(control.session().get("/api/jobs").json()) == 1


@pytest.mark.parametrize("committed", [True, False])
def test_a_crash_before_the_answer_makes_no_second_job(control: Control, client: TestClient, committed: bool) -> None:
    """As a process leaves it that is killed between the job's row and its mark, after its commit or before."""
    first = create(client).json()
    with writing(control.records.engine) as connection:
        connection.execute(update(jobs).values(revision=None))
    if not committed:
        subprocess.run(["git", "update-ref", "refs/heads/main", "main^"], cwd=control.repository.path, check=True)
    with control_at(control.home) as restarted:
        restarted.clock.ahead = timedelta(minutes=2)
        assert_error(create(restarted.session()), 409, "idempotency_key_in_use")
        assert [str(id_) for id_ in restarted.operations.declarations.recover()] == [first["job_id"]]
        assert create(restarted.session()).json() == first
        assert [site["slug"] for site in restarted.session().get("/api/sites").json()] == ["acme"]
        assert len(restarted.session().get("/api/jobs").json()) == 1
