"""The serving process among others: it ends in order, shares a database, and says so when it cannot work."""

import contextlib
import socket
import sqlite3
import time
from collections.abc import Iterator

import pytest

from reconciler.nodes import processes
from tests.controlplane import (
    EMAIL,
    PASSWORD,
    WITH_NODES,
    MakeControlPlane,
    closed_port,
    node_document,
    site_documents,
    until,
)

ACME = "sites/acme/environments/production.yaml"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A node that accepts connections and never says a word."""
    with socket.socket() as ear:
        ear.bind(("127.0.0.1", 0))
        ear.listen(64)
        yield ear.getsockname()[1]


def test_ended_in_order_while_a_job_runs(control_plane: MakeControlPlane, silent_port: int) -> None:
    plane = control_plane({"nodes/web-1.yaml": node_document(port=silent_port)}, TRUEUP_SCHEDULE="false", **WITH_NODES)
    job = plane.create_site("acme")
    until(lambda: plane.job(job["id"])["status"] == "running", "the job to run")

    assert plane.terminate() == 0

    with plane.opened() as home:
        (stored,) = home.records.jobs.page().jobs
        assert (stored.status, stored.locked_by) == ("queued", None)
    assert not (plane.home / "wake.sock").exists()
    assert processes.marked({processes.JOB_MARK: str(stored.id)}) == []
    assert "Traceback" not in plane.log()


@pytest.mark.long
def test_an_idle_process_ends_sooner_than_it_started(control_plane: MakeControlPlane) -> None:
    plane, longer = control_plane(start=False, **WITH_NODES), []
    for _ in range(3):  # a machine that stands still for a moment does so once
        began = time.monotonic()
        plane.start()
        started = time.monotonic()
        assert plane.terminate() == 0
        longer.append(time.monotonic() - started >= started - began)
        if not longer[-1]:
            break
    assert not all(longer)
    assert not plane.has_logged("Traceback")


@pytest.mark.long
def test_its_end_ends_the_streams_of_events(control_plane: MakeControlPlane) -> None:
    """Clients would listen for ever, and the process does not wait for them."""
    plane = control_plane({"nodes/web-1.yaml": node_document(port=closed_port())}, TRUEUP_WORKERS="0")
    job_id = plane.create_site("acme")["id"]
    with plane.http.stream("GET", f"/api/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as response:
        lines = response.iter_lines()
        until(lambda: next(lines).startswith("id: 2"), "the events so far")
        assert plane.terminate() == 0
        assert [line for line in lines if line.startswith("id: ")] == []
    assert "timeout graceful shutdown exceeded" not in plane.log(), "uvicorn would end them, seconds later"


def test_of_two_on_one_database_one_ticks(control_plane: MakeControlPlane) -> None:
    documents = {"nodes/web-1.yaml": node_document(port=closed_port()), **site_documents("acme")}
    one = control_plane(documents, TRUEUP_STORE_POLL_S="0.2")
    other = control_plane(home=one.home, TRUEUP_STORE_POLL_S="0.2")
    first = one.clone.replace(ACME, "fastcgi: true", "fastcgi: false")
    until(lambda: one.has_logged(first[:12]), "the first to see the push")
    # Who ticks sees one push after the other; the other process, which would look as often, sees none of them.
    second = one.clone.replace(ACME, "fastcgi: false", "fastcgi: true")
    until(lambda: one.has_logged(second[:12]), "the first to see the next push")
    assert not [revision for revision in (first, second) if other.has_logged(revision[:12])]

    one.kill()
    third = one.clone.replace(ACME, "fastcgi: true", "fastcgi: false")

    until(lambda: other.has_logged(third[:12]), "the second to take over", told=other.log)
    # Requests are answered by either, and the one that came second is no worse.
    assert other.http.get("/api/sites").status_code == 200


def test_a_push_wakes_the_loop(control_plane: MakeControlPlane) -> None:
    """Without the wake it would look in an hour, long after the patience of this test."""
    documents = {"nodes/web-1.yaml": node_document(port=closed_port()), **site_documents("acme")}
    plane = control_plane(documents, TRUEUP_STORE_POLL_S="3600")
    until(lambda: plane.has_logged("store read"), "the first look")
    revision = plane.clone.replace(ACME, "fastcgi: true", "fastcgi: false")
    until(lambda: plane.has_logged(revision[:12]), "the hook's datagram to be heard")


@pytest.mark.long
def test_a_database_that_cannot_be_read(control_plane: MakeControlPlane) -> None:
    plane = control_plane({"nodes/web-1.yaml": node_document(port=closed_port())}, TRUEUP_SCHEDULE="false")
    database = plane.home / "trueup.db"
    backup = database.read_bytes()
    database.write_bytes(b"not a database, " * 4096)

    ready = plane.http.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert plane.http.get("/healthz").status_code == 200
    for answer in (
        plane.http.get("/api/sites"),
        plane.http.post("/api/sites", json={"name": "Acme", "slug": "acme"}),
        plane.http.post("/api/login", json={"email": EMAIL, "password": PASSWORD}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "records_error"), answer.text
        assert str(plane.home) not in answer.text
    plane.terminate()
    for command in ("serve", "status"):
        said = plane.refused(command)
        assert said.startswith(f"The records at sqlite:///{database} could not be read")

    database.write_bytes(backup)
    plane.restart()
    assert plane.login().create_site("acme")["status"] in {"queued", "running"}


def test_a_store_that_is_gone(control_plane: MakeControlPlane) -> None:
    plane = control_plane({"nodes/web-1.yaml": node_document(port=closed_port())}, TRUEUP_SCHEDULE="false")
    aside = plane.store.with_suffix(".aside")
    plane.store.rename(aside)

    assert plane.http.get("/readyz").status_code == 503, plane.log()
    refused = plane.http.post("/api/sites", json={"name": "Acme", "slug": "acme"})
    assert (refused.status_code, refused.json()["code"]) == (503, "store_error"), refused.text
    assert plane.refused("status")

    aside.rename(plane.store)
    assert plane.http.get("/readyz").status_code == 200
    plane.create_site("acme")
    with plane.opened() as home:
        assert home.records.jobs.uncommitted() == []
        assert len(home.records.jobs.page().jobs) == 1


@pytest.mark.long
def test_a_port_that_is_taken(control_plane: MakeControlPlane) -> None:
    plane = control_plane(TRUEUP_SCHEDULE="false")
    said = plane.command("serve", check=False)
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (1, "", 1)
    assert said.stderr.startswith(f"trueup: 127.0.0.1 port {plane.port} cannot be listened at")
    assert plane.http.get("/readyz").status_code == 200


def test_a_locked_database_is_an_answer(control_plane: MakeControlPlane) -> None:
    """Somebody's sqlite shell in a transaction: what only reads is answered before that one ends."""
    plane = control_plane({"nodes/web-1.yaml": node_document(port=closed_port())}, TRUEUP_SCHEDULE="false")
    with contextlib.closing(sqlite3.connect(plane.home / "trueup.db", isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        assert plane.http.get("/api/sites").status_code == 200
        shell.execute("ROLLBACK")
    assert plane.create_site("acme")["job_type"] == "site-create"
