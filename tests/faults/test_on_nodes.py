"""Real sites on two real nodes, made through the API, while people, processes and wires misbehave."""

import html
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.nodes import processes
from tests.controlplane import MakeControlPlane, run_git, until
from tests.lab import Lab
from tests.place import Place, placed
from tests.proof import count

pytestmark = [pytest.mark.lab, pytest.mark.long]

MARK = "/tmp/tu-pwn"
HOSTILE = f"{{{{ lookup('pipe','touch {MARK}') }}}} $(touch {MARK}) `touch {MARK}`;\"|>&%s \\ ß漢🎉 ../"


@pytest.fixture(scope="module")
def place(lab: Lab, provisioned_snapshot: str, shared_control_plane: MakeControlPlane) -> Iterator[Place]:
    with placed(lab, provisioned_snapshot, shared_control_plane, ("web-1", "web-2")) as place:
        yield place


@pytest.fixture(scope="module")
def hostile(place: Place) -> dict[str, Any]:
    return place.make_site("hostile", HOSTILE)


@pytest.fixture(scope="module")
def dashed(place: Place, hostile: dict[str, Any]) -> dict[str, Any]:
    """A site on the other node."""
    environment = place.make_site("dashed", "--version -rf $HOME")
    assert environment["node_id"] != hostile["node_id"]
    return environment


def test_a_hostile_title_is_a_title(place: Place, hostile: dict[str, Any], dashed: dict[str, Any]) -> None:
    for environment, title in ((hostile, HOSTILE), (dashed, "--version -rf $HOME")):
        stored = place.sql(environment, "SELECT option_value FROM wp_options WHERE option_name = 'blogname'")
        assert html.unescape(stored) == title
        page = place.page(environment)
        assert page.status_code == 200
    shown = html.unescape(place.page(hostile).text)
    assert f"touch {MARK}" in shown
    assert "{{ lookup(" in shown
    assert not Path(MARK).exists()
    for node in place.nodes.values():
        assert node.ssh(["ls", MARK], check=False).returncode == 2


@pytest.mark.parametrize(
    "slug", ["{{ 7*7 }}", "$(id)", "-rf", "../x", "a/b", "a'b", "a\nb", "ä", "a b", "A", "a-", "a" * 64, "", "a\u0000"]
)
def test_a_hostile_slug_is_refused(place: Place, slug: str) -> None:
    answer = place.plane.http.post("/api/sites", json={"name": "Name", "slug": slug})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text


@pytest.mark.parametrize("name", ["one\ntwo", "a\u0000b", "a\u001bb", "", " ", "x" * 10_000])
def test_a_hostile_name_is_refused(place: Place, name: str) -> None:
    answer = place.plane.http.post("/api/sites", json={"name": name, "slug": "refused"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text


def test_killed_anywhere_on_the_way(place: Place) -> None:
    dice, plane = random.Random(3), place.plane
    began = time.monotonic()
    place.make_site("measured")
    whole_s = time.monotonic() - began
    kills, interrupted = count(short=1, full=5), 0
    for number in range(kills):
        slug = f"killed-{number}"
        job = plane.create_site(slug)
        time.sleep(whole_s * (number + dice.uniform(0.2, 0.8)) / kills)
        interrupted += plane.job(job["id"])["status"] != "succeeded"
        plane.kill()
        plane.restart()
        ended = plane.wait_job(job["id"])
        assert (ended["status"], ended["error_code"]) == ("succeeded", None), ended
        environment = plane.environment_of(slug)
        assert environment["status"] == "active"
        assert place.page(environment).status_code == 200
        assert len(place.manifest(environment)["contents"]) == 1
        assert len(place.manifest(environment)["releases"]) == 1
        assert place.sql(environment, "SELECT COUNT(*) FROM wp_users") == "1"
        assert len(plane.declaring_commits()[job["id"]]) == 1
        assert processes.marked({processes.JOB_MARK: job["id"]}) == []
    assert interrupted > kills // 2, "the kills came too late to prove anything"
    made = [site["slug"] for site in plane.http.get("/api/sites").json()]
    assert sorted(made) == sorted(set(made))
    run_git(plane.store, "fsck", "--strict")


def test_ended_in_order_in_the_middle_of_a_run(place: Place) -> None:
    plane = place.plane
    job = plane.create_site("stopped")
    scope = ["systemctl", "list-units", "--plain", "--no-legend", f"trueup-{job['id']}.scope"]
    until(lambda: bool(processes.marked({processes.JOB_MARK: job["id"]})), "ansible to run")
    with place.databases_held():
        until(lambda: any(node.ssh(scope).stdout for node in place.nodes.values()), "the node to work")

        assert plane.terminate() == 0

        try:
            assert processes.marked({processes.JOB_MARK: job["id"]}) == []
            with plane.opened() as home:
                (stored,) = [one for one in home.records.jobs.page().jobs if str(one.id) == job["id"]]
                assert (stored.status, stored.attempt_count, stored.locked_by) == ("queued", 0, None)
            assert [node.ssh(scope).stdout for node in place.nodes.values()] == ["", ""]
        finally:
            plane.restart()
    assert plane.wait_job(job["id"])["status"] == "succeeded"
    assert place.page(plane.environment_of("stopped")).status_code == 200


def observed_again(place: Place, *environments: dict[str, Any]) -> None:
    """The nodes of these are asked twice more: after the second answer began, the first was acted on."""

    def moments() -> dict[str, str]:
        return {node["id"]: node["observed_at"] for node in place.plane.http.get("/api/nodes").json()}

    for _ in range(2):
        before = moments()
        for node in {one["node_id"] for one in environments}:
            until(lambda node=node, then=before[node]: moments()[node] > then, "a look at the node")  # type: ignore[misc]


def set_mode(place: Place, slug: str, mode: str) -> None:
    path = f"sites/{slug}/environments/production.yaml"
    text = place.plane.clone.read(path)
    lines = text.partition("  reconcile:\n")[0]
    place.plane.clone.push({path: f"{lines}  reconcile:\n    mode: {mode}\n    reason: a test\n"})


def test_healed_reported_or_left_alone(place: Place, hostile: dict[str, Any], dashed: dict[str, Any]) -> None:
    plane = place.plane
    paused = place.make_site("resting")
    set_mode(place, "dashed", "report")
    set_mode(place, "resting", "paused")
    for environment in (hostile, dashed, paused):
        place.touch_block(environment)
    place.node_of(hostile).ssh(["systemctl", "stop", f"trueup-php@{hostile['id']}.service"])

    until(lambda: not place.is_touched(hostile), "the server block to be put right", told=plane.log)
    until(lambda: place.page(hostile).status_code == 200, "the site to be back", told=plane.log)

    try:
        observed_again(place, dashed, paused)
        assert place.is_touched(dashed)
        assert place.is_touched(paused)
        assert plane.http.post(f"/api/environments/{paused['id']}/cache/purge").status_code == 409
        plan = plane.cli("plan", "-o", "json")
        assert plan.exit_code == 0, plan.output + repr(plan.exception)
        verdicts = {step["target"]: step["verdict"] for step in json.loads(plan.stdout)["steps"]}
        assert verdicts == {"dashed/production": "report", "resting/production": "paused"}
    finally:
        for slug in ("dashed", "resting"):
            set_mode(place, slug, "enforce")
    until(lambda: not place.is_touched(dashed) and not place.is_touched(paused), "both to be healed", told=plane.log)


def cache_word(place: Place, environment: dict[str, Any]) -> str | None:
    return place.page(environment).headers.get("x-fastcgi-cache")


def test_a_push_is_applied(place: Place, dashed: dict[str, Any]) -> None:
    place.page(dashed)
    assert cache_word(place, dashed) == "HIT"
    path = "sites/dashed/environments/production.yaml"
    place.plane.clone.replace(path, "fastcgi: true", "fastcgi: false")
    until(lambda: cache_word(place, dashed) == "NONE", "the cache to be off", told=place.plane.log)
    assert place.plane.environment_of("dashed")["fastcgi_cache_enabled"] is False
    answer = place.plane.http.patch(f"/api/environments/{dashed['id']}/cache", json={"fastcgi_cache_enabled": True})
    assert place.run(answer)["status"] == "succeeded"
    place.page(dashed)
    assert cache_word(place, dashed) == "HIT"


def test_a_purge_empties_this_cache_alone(place: Place, hostile: dict[str, Any], dashed: dict[str, Any]) -> None:
    for environment in (hostile, dashed):
        place.page(environment)
        assert cache_word(place, environment) == "HIT"
    answer = place.plane.http.post(f"/api/environments/{hostile['id']}/cache/purge")
    assert place.run(answer)["status"] == "succeeded"
    assert cache_word(place, hostile) == "MISS"
    assert cache_word(place, dashed) == "HIT"


def test_a_drift_check_looks_into_the_code(place: Place, dashed: dict[str, Any]) -> None:
    check = f"/api/environments/{dashed['id']}/drift-check"
    assert place.run(place.plane.http.post(check))["status"] == "succeeded"
    assert place.plane.environment_of("dashed")["drift_status"] == "clean"
    core = f"/var/www/sites/{dashed['id']}/current/wp-admin/about.php"
    node = place.node_of(dashed)
    node.ssh(f"cp -p {core} /root/kept && rm {core} && sed 's/<?php/<?php \\/\\/ x/' /root/kept > {core}")
    assert place.run(place.plane.http.post(check))["status"] == "succeeded"
    drifted = place.plane.environment_of("dashed")
    assert drifted["drift_status"] == "drifted"
    assert drifted["drift_checked_at"]
    told = json.loads(place.plane.cli("drift", "dashed/production", "-o", "json").stdout)
    assert "about.php" in json.dumps(told)


def test_an_unreachable_node_is_nobody_elses_trouble(
    place: Place, hostile: dict[str, Any], dashed: dict[str, Any]
) -> None:
    plane, node = place.plane, place.node_of(dashed)
    flip = {"redis_cache_enabled": False}
    node.freeze()
    try:
        job = plane.http.patch(f"/api/environments/{dashed['id']}/cache", json=flip).json()["job_id"]
        until(lambda: plane.job(job)["error_code"] is not None, "the attempt to fail", told=plane.log)
        assert plane.job(job)["error_code"] == "ANSIBLE_HOST_UNREACHABLE"
        assert plane.job(job)["status"] == "queued"
        assert "does not answer" in plane.job(job)["error_message"]

        other = place.run(plane.http.patch(f"/api/environments/{hostile['id']}/cache", json=flip))
        assert other["status"] == "succeeded"
        assert place.page(hostile).status_code == 200
        statuses = {one["name"]: one["status"] for one in plane.http.get("/api/nodes").json()}
        assert sorted(statuses.values()) == ["active", "unreachable"]
    finally:
        node.thaw()
    # Seen again, it doesn't wait for the minute that was to pass before the next attempt.
    assert plane.wait_job(job)["status"] == "succeeded"
    assert place.manifest(dashed)["variables"]["redis_cache"] is False
