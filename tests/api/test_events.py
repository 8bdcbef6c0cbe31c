"""A job's events over a real server: as a list, as a stream that goes on where it was left, and that ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from starlette.testclient import TestClient

from reconciler.records.events import EventKind
from reconciler.records.outcomes import Succeeded
from reconciler.records.queue import Claimed, Queue
from tests.api.control import EMAIL, LOCAL, Control, assert_error, control_at
from tests.api.server import listen, serving

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def job_id(control: Control) -> str:
    return str(control.records.jobs.page().jobs[0].id) if control.create_site("acme") else ""


@pytest.fixture
def http(control: Control) -> Iterator[httpx.Client]:
    """Over real sockets: what a stream does is seen while it goes on."""
    token = control.records.sessions.create(EMAIL, LOCAL, control.clock())
    with (
        serving(control.app, listen()) as url,
        httpx.Client(base_url=url, cookies={"session_token": token}, timeout=120, trust_env=False) as client,
    ):
        yield client


def claim(control: Control) -> tuple[Queue, Claimed]:
    queue = Queue(control.records.engine)
    claimed = queue.claim("worker-1", control.clock())
    assert claimed is not None
    return queue, claimed


def parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream, as a browser reads them."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields := {name: value for name, value in fields.items() if name in {"id", "event", "data"}}:
            event = json.loads(fields["data"])
            assert (str(event["number"]), event["kind"]) == (fields["id"], fields["event"])
            yield event
            fields = {}


def test_as_a_list(control: Control, client: TestClient, job_id: str) -> None:
    url = f"/api/jobs/{job_id}/events"
    events = client.get(url).json()
    assert [event["kind"] for event in events] == ["accepted", "committed"]
    assert client.get(url, headers={"Last-Event-ID": "1"}).json() == events[1:]
    assert client.get(url, headers={"Accept": "text/event-stream;q=0.5, application/json"}).json() == events
    assert_error(client.get(f"/api/jobs/{uuid4()}/events"), 404, "not_found")
    for value in ("x", "-1", "1.5", "99999999999"):
        assert_error(client.get(url, headers={"Last-Event-ID": value}), 400, "invalid_request")
    assert_error(control.client().get(url), 401, "unauthorized")


def test_a_stream_tells_what_was_and_what_comes_and_ends_with_the_job(
    control: Control, http: httpx.Client, job_id: str
) -> None:
    with http.stream("GET", f"/api/jobs/{job_id}/events", headers=STREAM) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        events = parsed(response.iter_lines())
        assert [next(events)["kind"], next(events)["kind"]] == ["accepted", "committed"]
        # As a worker in another process would: through the database alone.
        with control_at(control.home) as elsewhere:
            queue, claimed = claim(elsewhere)
            started = next(events)
            assert (started["kind"], started["data"]) == ("started", {"attempt": 1, "worker": "worker-1"})
            data = {"task": "Bring it", "status": "started"}
            elsewhere.records.events.tell(UUID(job_id), EventKind.TASK, data, elsewhere.clock())
            assert next(events)["data"] == data
            queue.finish(claimed.job.id, claimed.fence, Succeeded(), elsewhere.clock())
        assert next(events)["data"] == {"status": "succeeded", "error_code": None}
        assert list(events) == []


def test_it_goes_on_after_the_event_that_was_seen_last(control: Control, http: httpx.Client, job_id: str) -> None:
    url = f"/api/jobs/{job_id}/events"
    control.session().post(f"/api/jobs/{job_id}/cancel")
    with http.stream("GET", url, headers={**STREAM, "Last-Event-ID": "2"}) as response:
        assert [event["number"] for event in parsed(response.iter_lines())] == [3]
    over = http.get(url, headers={**STREAM, "Last-Event-ID": "3"})
    assert (over.status_code, over.content) == (204, b"")


def test_many_streams_hold_no_threads_and_end_when_their_clients_go(
    control: Control, http: httpx.Client, job_id: str
) -> None:
    """More of them than there are threads for requests: others are answered meanwhile."""
    url = f"/api/jobs/{job_id}/events"
    streams = [http.stream("GET", url, headers=STREAM) for _ in range(60)]
    responses = [stream.__enter__() for stream in streams]
    readers = [parsed(response.iter_lines()) for response in responses]
    assert [next(reader)["number"] for reader in readers] == [1] * 60
    assert http.get("/api/sites").status_code == 200
    assert len(threading.enumerate()) < 60
    for response in responses:
        response.close()
    assert http.get(url).status_code == 200


def test_the_servers_end_ends_it(control: Control, http: httpx.Client, job_id: str) -> None:
    with http.stream("GET", f"/api/jobs/{job_id}/events", headers=STREAM) as response:
        events = parsed(response.iter_lines())
        assert [next(events)["number"], next(events)["number"]] == [1, 2]
        control.app.state.ending.begin()
        assert list(events) == []
