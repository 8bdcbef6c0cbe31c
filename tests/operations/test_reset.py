"""A failed environment becomes active by a reset, and only when it is healthy."""

from typing import Any
from uuid import UUID

import pytest

from reconciler.core.status import EnvironmentStatus
from reconciler.home import clock
from tests.controlplane import until
from tests.place import Place

pytestmark = pytest.mark.lab


def _fail(place: Place, environment: dict[str, Any]) -> None:
    with place.plane.opened() as home:
        home.records.statuses.put(UUID(environment["id"]), EnvironmentStatus.FAILED, clock())


def _status(place: Place, environment: dict[str, Any]) -> str:
    found: str = place.plane.http.get(f"/api/environments/{environment['id']}").json()["status"]
    return found


@pytest.mark.long
def test_only_what_is_healthy_becomes_active(place: Place) -> None:
    environment = place.make_site("reset")
    body = {"name": "Copy", "slug": "copy", "type": "staging"}
    job = place.run(place.plane.http.post(f"/api/sites/{environment['site_id']}/environments", json=body))
    copy = place.plane.http.get(f"/api/environments/{job['environment_id']}").json()
    url = f"/api/environments/{environment['id']}/reset"
    assert place.plane.http.post(url).json()["code"] == "environment_not_failed"

    node, service = place.node_of(environment), f"trueup-php@{environment['id']}.service"
    node.ssh(["systemctl", "stop", service])
    for one in (environment, copy):
        _fail(place, one)
    job = place.run(place.plane.http.post(url))
    assert (job["status"], job["error_code"]) == ("failed", "ENVIRONMENT_UNHEALTHY")
    assert "reset/production is unhealthy" in job["error_message"]
    assert _status(place, environment) == "failed"

    job = place.run(place.plane.http.post(f"/api/sites/{environment['site_id']}/reset"))
    assert (job["status"], job["error_code"]) == ("failed", "ENVIRONMENT_UNHEALTHY")
    assert (_status(place, environment), _status(place, copy)) == ("failed", "active")

    node.ssh(["systemctl", "start", service])
    until(lambda: place.page(environment).status_code == 200, "the site to answer")
    assert place.run(place.plane.http.post(url))["status"] == "succeeded"
    assert _status(place, environment) == "active"
