"""Whether an environment serves: asked on demand and by the clock, and what becomes of an answer that it does not."""

from typing import Any
from uuid import UUID

import pytest

from tests.place import Place

pytestmark = pytest.mark.lab
DOCUMENT = "sites/watched/environments/production.yaml"


@pytest.fixture(scope="module")
def site(place: Place) -> dict[str, Any]:
    environment = place.make_site("watched")
    # What these tests break, the loop would mend before anybody looks.
    place.plane.clone.replace(DOCUMENT, "spec:\n", "spec:\n  reconcile: {mode: report, reason: a test}\n")
    return environment


def asked(place: Place, environment: dict[str, Any]) -> dict[str, Any]:
    """What a health check on demand finds."""
    job = place.run(place.plane.http.post(f"/api/environments/{environment['id']}/health-check"))
    assert job["status"] == "succeeded", job
    with place.plane.opened() as home:
        found = home.records.jobs.get(UUID(job["id"])).result
    assert found is not None
    return found


def test_each_of_the_three_checks_says_what_is_wrong_and_changes_nothing(place: Place, site: dict[str, Any]) -> None:
    node, id_ = place.node_of(site), site["id"]
    database, before = "wp_" + id_.replace("-", "")[:12], place.manifest(site)
    well = asked(place, site)
    assert (well["health"], well["reason"]) == ("healthy", None)
    assert well["checks"] == {"page": None, "wordpress": None, "database": None}
    assert place.plane.command("health", "watched/production").stdout.endswith("watched/production is healthy.\n")

    node.ssh(["mariadb", "-e", f"ALTER USER {database}@localhost ACCOUNT LOCK"])
    try:
        found = asked(place, site)
        told = place.plane.command("health", "watched/production", check=False)
    finally:
        node.ssh(["mariadb", "-e", f"ALTER USER {database}@localhost ACCOUNT UNLOCK"])
    assert found["health"] == "unhealthy"
    assert all(found["checks"].values()), found
    assert (told.returncode, "is unhealthy" in told.stdout) == (1, True)

    node.ssh(["systemctl", "stop", f"trueup-php@{id_}.service"])
    try:
        found = asked(place, site)
    finally:
        node.ssh(["systemctl", "start", f"trueup-php@{id_}.service"])
    assert [name for name, said in found["checks"].items() if said] == ["page"]
    assert (found["alone"], found["previous"]) == (False, None)

    node.ssh(["touch", f"/var/www/sites/{id_}/current/.maintenance"])
    try:
        assert asked(place, site)["health"] == "unknown"
    finally:
        node.ssh(["rm", f"/var/www/sites/{id_}/current/.maintenance"])
    assert asked(place, site)["health"] == "healthy"
    assert place.manifest(site) == before
