"""A job has ended, and its worker has not yet done what follows: a client that waited for it goes on at once."""

from __future__ import annotations

from uuid import UUID

import pytest
from starlette.testclient import TestClient

from reconciler.operations.aftermath import wind_up
from reconciler.records.jobs import Job
from reconciler.records.outcomes import Failed, Outcome, Succeeded
from reconciler.records.queue import Queue
from tests.api.control import Control, assert_error

DEPLOY: dict[str, object] = {"source_type": "upload", "source_ref": "https://example.com/site.tar.gz"}


@pytest.fixture
def environment(control: Control) -> UUID:
    _, environment = control.create_site("acme")
    ended(control, Succeeded())
    return environment


def ended(control: Control, outcome: Outcome) -> Job:
    """The next job, done, with nothing of what follows."""
    queue = Queue(control.records.engine)
    claimed = queue.claim("worker", control.clock())
    assert claimed is not None
    return queue.finish(claimed.job.id, claimed.fence, outcome, control.clock())


def test_the_next_request_is_accepted_and_its_status_stays(
    control: Control, client: TestClient, environment: UUID
) -> None:
    url = f"/api/environments/{environment}"
    assert client.get(url).json()["status"] == "active"
    assert client.post(f"{url}/deploy", json=DEPLOY).status_code == 202
    assert client.get(url).json()["status"] == "deploying"
    first = ended(control, Succeeded())
    assert client.get(url).json()["status"] == "active"
    assert client.post(f"{url}/deploy", json=DEPLOY).status_code == 202
    wind_up(first, control.state, control.clock())
    assert client.get(url).json()["status"] == "deploying", "with the second"
    assert_error(client.post(f"{url}/deploy", json=DEPLOY), 409, "conflict")
    wind_up(ended(control, Succeeded()), control.state, control.clock())
    assert client.get(url).json()["status"] == "active"


def test_what_failed_is_failed_at_once(control: Control, client: TestClient, environment: UUID) -> None:
    url = f"/api/environments/{environment}"
    client.post(f"{url}/deploy", json=DEPLOY)
    ended(control, Failed("RELEASE_UNHEALTHY", "It answers 500."))
    assert client.get(url).json()["status"] == "failed"
    assert "is failed" in assert_error(client.post(f"{url}/deploy", json=DEPLOY), 409, "conflict")
