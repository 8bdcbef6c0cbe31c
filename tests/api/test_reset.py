"""Asking for a reset: of what failed, once. What a health check then finds is in tests/operations/test_reset.py."""

from __future__ import annotations

from uuid import UUID

import pytest
from starlette.testclient import TestClient

from tests.api.control import Control, assert_error


@pytest.fixture
def site(control: Control) -> tuple[UUID, UUID]:
    return control.create_site("acme")


@pytest.mark.parametrize("status", ["active", "deploying"])
def test_what_is_not_failed(control: Control, client: TestClient, site: tuple[UUID, UUID], status: str) -> None:
    control.set_status(site[1], status)
    for path in (f"environments/{site[1]}", f"sites/{site[0]}"):
        message = assert_error(client.post(f"/api/{path}/reset"), 409, "environment_not_failed")
        assert "acme/production" in message


def test_it_is_a_health_check_and_changes_nothing_by_itself(
    control: Control, client: TestClient, site: tuple[UUID, UUID]
) -> None:
    control.set_status(site[1], "failed")
    head = control.repository.head()
    job_id = client.post(f"/api/environments/{site[1]}/reset").json()["job_id"]
    job = client.get(f"/api/jobs/{job_id}").json()
    assert (job["job_type"], job["environment_id"], job["status"]) == ("health-check", str(site[1]), "queued")
    assert client.get(f"/api/environments/{site[1]}").json()["status"] == "failed"
    assert control.repository.head() == head
    assert client.post(f"/api/environments/{site[1]}/reset").json()["job_id"] == job_id, "one that waits is enough"


def test_a_site_is_reset_by_one_job(control: Control, client: TestClient, site: tuple[UUID, UUID]) -> None:
    control.set_status(site[1], "failed")
    job_id = client.post(f"/api/sites/{site[0]}/reset").json()["job_id"]
    job = control.records.jobs.get(UUID(job_id))
    assert (job.site_id, job.environment_id) == (site[0], None)
    assert (job.intent or {})["reset"] == [str(site[1])]
    assert job.locks[0].resource == f"site:{site[0]}"
