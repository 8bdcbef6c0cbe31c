"""Whether an environment serves: asked on demand and by the clock, and what becomes of an answer that it does not."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from tests.controlplane import until
from tests.lab.git_server import GitServer, git_daemon
from tests.lab.s3 import S3
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


@pytest.mark.long
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


@pytest.fixture(scope="module")
def server(place: Place, storage: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    gateway = place.nodes["web-1"].network.gateway
    with git_daemon(tmp_path_factory.mktemp("git"), gateway) as server:
        yaml = storage.platform() + f"  imports: {{allowed_hosts: ['{gateway}']}}\n"
        place.plane.clone.push({"platform.yaml": yaml}, "Allow the Git server")
        yield server
        place.plane.clone.push({"platform.yaml": storage.platform()}, "Allow no Git server")


def breakable(word: str) -> str:
    """A must-use plugin that is well until a file of this name is among the uploads."""
    flag = f"ABSPATH . 'wp-content/uploads/break-{word}'"
    body = f"if (file_exists({flag})) {{ no_such_function_{word}(); }} echo '<i>{word}</i>';"
    return f"<?php add_action('wp_footer', function () {{ {body} }});"


@pytest.mark.long
def test_a_release_that_becomes_unhealthy_is_left_once_for_the_one_before_it(place: Place, server: GitServer) -> None:
    site = place.make_site("rolling")
    plane, node, path = place.plane, place.node_of(site), f"/api/environments/{site['id']}"
    uploads, document = f"/var/www/sites/{site['id']}/shared/uploads", "sites/rolling/environments/production.yaml"
    plane.clone.replace(document, "spec:\n", "spec:\n  health: {interval_s: 5}\n")
    released = []
    for word in ("first", "second"):
        server.commit("rolling", {"wp-content/mu-plugins/ours.php": breakable(word)})
        body = {"source_type": "git", "source_ref": server.url("rolling")}
        assert place.run(plane.http.post(f"{path}/deploy", json=body))["status"] == "succeeded"
        released.append(plane.http.get(path).json()["current_release_id"])

    def healthy() -> bool:
        return bool(plane.http.get(path).json()["current_release_health"] == "healthy")

    until(healthy, "the clock to find it healthy", told=plane.log)

    node.ssh(["touch", f"{uploads}/break-second"])
    took = until(lambda: plane.http.get(path).json()["current_release_id"] == released[0], "going back", told=plane.log)
    message = plane.git("log", "-1", "--format=%an: %B", "--", document)
    assert message.startswith(f"trueup: Roll rolling/production back to release {released[0]}")
    assert f"Release {released[1]} is unhealthy" in message
    # Until it is served, what was found of it when it last was stands.
    until(lambda: "<i>first</i>" in place.page(site).text, "the release before it to be served", told=plane.log)
    until(healthy, "the release before it to be healthy", told=plane.log)
    print(f"a release that became unhealthy: left for the one before it after {took:.1f} s")

    node.ssh(["rm", f"{uploads}/break-second"])
    node.ssh(["touch", f"{uploads}/break-first"])
    # By its reason: while something else is at work on the environment, it is left alone for that.
    until(
        lambda: plane.has_logged("Trueup went from one of the two to the other already"),
        "it to be told",
        told=plane.log,
    )
    record = plane.http.get(path).json()
    assert (record["current_release_id"], record["current_release_health"]) == (released[0], "unhealthy")
    assert "answers 500" in record["health_reason"]
    assert "unhealthy rolling/production: " in plane.command("plan", "rolling/production").stdout
    assert "unhealthy" in plane.command("drift", "rolling/production").stdout
    assert "unhealthy" in plane.command("status").stdout
    assert 'trueup_environments_health{health="unhealthy"} 1.0' in plane.http.get("/metrics").text
    assert plane.git("log", "-1", "--format=%an: %B", "--", document) == message, "not to and fro"

    node.ssh(["rm", f"{uploads}/break-first"])
    until(healthy, "it to be mended", told=plane.log)


@pytest.mark.long
def test_a_database_that_is_stopped_is_no_releases_fault(place: Place, server: GitServer) -> None:
    site = place.plane.environment_of("rolling")
    plane, node, path = place.plane, place.node_of(site), f"/api/environments/{site['id']}"
    database, revision = "wp_" + site["id"].replace("-", "")[:12], plane.git("rev-parse", "main")
    node.ssh(["mariadb", "-e", f"ALTER USER {database}@localhost ACCOUNT LOCK"])
    try:
        unhealthy = lambda: plane.http.get(path).json()["current_release_health"] == "unhealthy"  # noqa: E731
        until(unhealthy, "the clock to find it", told=plane.log)
        until(lambda: plane.has_logged("would not answer another release"), "it to be told", told=plane.log)
    finally:
        node.ssh(["mariadb", "-e", f"ALTER USER {database}@localhost ACCOUNT UNLOCK"])
    until(lambda: plane.http.get(path).json()["current_release_health"] == "healthy", "it to be well", told=plane.log)
    assert plane.git("rev-parse", "main") == revision
