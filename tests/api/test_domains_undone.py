"""What becomes of a domain whose `domain-add` did not succeed: cancelled, it goes out of Git; failed, it stays.

docs/domains.md: a name without a certificate stays declared, `failed`, and the loop tries again by itself.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from reconciler.operations.aftermath import wind_up
from reconciler.records.outcomes import Failed, Outcome, Stopped, Succeeded
from reconciler.records.queue import Claimed, Queue
from tests.api.control import Control
from tests.api.test_cancel import cancel, environment, hostnames

__all__ = ["environment"]

NAME, OTHER = "one.example.com", "two.example.com"


@pytest.fixture
def queue(control: Control) -> Queue:
    return Queue(control.records.engine)


def add(client: TestClient, environment: UUID, name: str = NAME) -> str:
    answer = client.post(f"/api/environments/{environment}/domains", json={"hostname": name})
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["job_id"]
    return job


def claimed(queue: Queue, control: Control) -> Claimed:
    found = queue.claim("worker", control.clock())
    assert found is not None
    return found


def end(queue: Queue, control: Control, run: Claimed, outcome: Outcome) -> str:
    job = queue.finish(run.job.id, run.fence, outcome, control.clock())
    wind_up(job, control.state, control.clock())
    return job.status


def test_cancelled_while_it_runs(control: Control, client: TestClient, environment: UUID, queue: Queue) -> None:
    job_id = add(client, environment)
    run = claimed(queue, control)
    cancel(client, job_id)
    assert hostnames(control, environment) == [NAME], "it still runs"
    assert end(queue, control, run, Stopped()) == "cancelled"
    assert hostnames(control, environment) == []
    assert client.get(f"/api/environments/{environment}/domains").json() == []


def test_cancelled_while_it_waits_for_another_attempt(
    control: Control, client: TestClient, environment: UUID, queue: Queue
) -> None:
    job_id = add(client, environment)
    run = claimed(queue, control)
    assert end(queue, control, run, Failed("ANSIBLE_HOST_FAILED", "lost")) == "queued"
    cancel(client, job_id)
    assert hostnames(control, environment) == []


def test_cancelled_after_another_one_was_added(
    control: Control, client: TestClient, environment: UUID, queue: Queue
) -> None:
    job_id = add(client, environment)
    run = claimed(queue, control)
    add(client, environment, OTHER)
    cancel(client, job_id)
    end(queue, control, run, Stopped())
    assert hostnames(control, environment) == [OTHER]


def test_a_crash_after_the_cancel_is_made_good(control: Control, client: TestClient, environment: UUID) -> None:
    job_id = add(client, environment)
    control.records.jobs.cancel(UUID(job_id), control.clock())  # and nothing of what follows
    control.clock.ahead = timedelta(seconds=10)
    control.operations.declarations.settle()
    assert hostnames(control, environment) == []


def test_a_crash_after_the_end_of_one_that_ran_is_made_good(
    control: Control, client: TestClient, environment: UUID, queue: Queue
) -> None:
    job_id = add(client, environment)
    run = claimed(queue, control)
    cancel(client, job_id)
    queue.finish(run.job.id, run.fence, Stopped(), control.clock())  # and nothing of what follows
    control.clock.ahead = timedelta(seconds=10)
    control.operations.declarations.settle()
    assert hostnames(control, environment) == []


@pytest.mark.parametrize("code", ["DNS_ELSEWHERE", "DNS_UNAVAILABLE", "CERTIFICATE_FAILED"])
def test_without_a_certificate_it_stays_and_the_loop_goes_on(
    code: str, control: Control, client: TestClient, environment: UUID, queue: Queue
) -> None:
    add(client, environment)
    assert end(queue, control, claimed(queue, control), Failed(code, "why")) == "failed"
    assert hostnames(control, environment) == [NAME]
    control.clock.ahead = timedelta(seconds=10)
    control.operations.declarations.settle()
    assert hostnames(control, environment) == [NAME]


def test_asked_for_again_and_cancelled_it_stays_as_it_was(
    control: Control, client: TestClient, environment: UUID, queue: Queue
) -> None:
    add(client, environment)
    end(queue, control, claimed(queue, control), Succeeded())
    cancel(client, add(client, environment))
    assert hostnames(control, environment) == [NAME]


def test_what_somebody_did_since_is_never_taken_back(control: Control, client: TestClient, environment: UUID) -> None:
    """The later commit stays, although a cancelled job is looked at again and again."""
    url = f"/api/environments/{environment}/domains"
    cancel(client, add(client, environment))
    assert hostnames(control, environment) == []
    add(client, environment)
    off = client.patch(f"/api/environments/{environment}/cache", json={"fastcgi_cache_enabled": False})
    assert off.status_code == 202
    [domain] = client.get(url).json()
    cancel(client, client.delete(f"/api/domains/{domain['id']}").json()["job_id"])
    for seconds in (10, 20):
        control.clock.ahead = timedelta(seconds=seconds)
        control.operations.declarations.settle()
        assert hostnames(control, environment) == [NAME]
        assert client.get(f"/api/environments/{environment}").json()["fastcgi_cache_enabled"] is False
