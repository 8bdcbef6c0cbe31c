"""What people push that cannot be used: told with file and line, and nobody else notices."""

import json
from typing import Any

import pytest
from httpx import Response

from tests.controlplane import ControlPlane, MakeControlPlane, closed_port, node_document, site_documents, until
from tests.proof import sampled

ACME = "sites/acme/environments/production.yaml"
GOOD = site_documents("acme")[ACME]

BROKEN = {
    "yaml": (GOOD.replace("spec:", "spec: [unclosed"), 4, "YAML"),
    "field": (GOOD.replace("fastcgi: true", "fastcig: true"), 7, "no such field"),
    "type": (GOOD.replace("redis: true", "redis: null"), 8, "boolean"),
    "reference": (GOOD.replace("node: web-1", "node: web-9"), 5, "names node web-9, which no document defines"),
    "encoding": (GOOD.encode() + b"# caf\xe9\n", 9, "UTF-8"),
}


@pytest.fixture(scope="module")
def plane(shared_control_plane: MakeControlPlane) -> ControlPlane:
    """Two sites on a node that refuses connections; nothing is observed, so that every job is somebody's mistake."""
    documents = {"nodes/web-1.yaml": node_document(port=closed_port()), **site_documents("acme")}
    return shared_control_plane({**documents, **site_documents("zenith")}, TRUEUP_OBSERVE_INTERVAL_S="3600")


def status(plane: ControlPlane) -> dict[str, Any]:
    """`trueup status -o json`, from somebody who has never seen the store before."""
    found: dict[str, Any] = json.loads(plane.cli("status", "-o", "json").stdout)
    return found


def toggle(plane: ControlPlane, environment_id: str) -> Response:
    return plane.http.patch(f"/api/environments/{environment_id}/cache", json={"redis_cache_enabled": False})


def jobs(plane: ControlPlane, environment_id: str) -> list[dict[str, Any]]:
    return [job for job in plane.http.get("/api/jobs").json() if job["environment_id"] == environment_id]


def wait_until_read(plane: ControlPlane, revision: str) -> None:
    until(lambda: plane.has_logged(revision[:12]), f"the loop to read {revision}", told=plane.log)


@pytest.mark.parametrize("fault", sampled(BROKEN))
def test_a_broken_document_stalls_alone(plane: ControlPlane, fault: str) -> None:
    content, line, words = BROKEN[fault]
    acme, zenith = plane.environment_of("acme"), plane.environment_of("zenith")
    count = len(jobs(plane, acme["id"]))

    wait_until_read(plane, plane.clone.push({ACME: content}))

    (stalled,) = status(plane)["stalled"]
    assert (stalled["path"], stalled["line"]) == (ACME, line), stalled
    assert words in stalled["message"]
    shown = plane.http.get(f"/api/environments/{acme['id']}")
    assert shown.status_code == 200
    # Those count what the jobs of before do meanwhile, whose node does not answer.
    counted = {"state_version": 0, "updated_at": "", "status": ""}
    assert {**shown.json(), **counted} == {**acme, **counted}
    refused = plane.http.patch(f"/api/environments/{acme['id']}/cache", json={"fastcgi_cache_enabled": False})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict"), refused.text
    assert ACME in refused.json()["message"]
    purge = plane.http.post(f"/api/environments/{acme['id']}/cache/purge")
    assert purge.status_code == 409, purge.text
    accepted = plane.http.patch(f"/api/environments/{zenith['id']}/cache", json={"fastcgi_cache_enabled": False})
    assert accepted.status_code == 202, accepted.text
    assert len(jobs(plane, acme["id"])) == count

    wait_until_read(plane, plane.clone.push({ACME: GOOD}, "Put it right"))

    assert status(plane)["stalled"] == []
    mended = plane.http.patch(f"/api/environments/{acme['id']}/cache", json={"fastcgi_cache_enabled": True})
    assert mended.status_code == 202, mended.text


def test_of_two_documents_with_one_id_the_changed_one_stalls(plane: ControlPlane) -> None:
    acme, zenith = plane.environment_of("acme"), plane.environment_of("zenith")
    other = "sites/zenith/environments/production.yaml"
    before = plane.clone.read(other)
    twin = before.replace("kind: Environment\n", f"kind: Environment\nmetadata:\n  id: {acme['id']}\n")

    wait_until_read(plane, plane.clone.push({other: twin}))

    # The one that was changed is stalled; the other has done nothing.
    (stalled,) = status(plane)["stalled"]
    assert (stalled["path"], stalled["line"]) == (other, 4)
    assert acme["id"] in stalled["message"]
    answers = {id_: toggle(plane, id_).status_code for id_ in (acme["id"], zenith["id"])}
    assert answers == {acme["id"]: 202, zenith["id"]: 409}
    assert plane.http.get(f"/api/environments/{zenith['id']}").json()["slug"] == "production"

    wait_until_read(plane, plane.clone.push({other: before}, "Give it back its id"))

    assert status(plane)["stalled"] == []
    assert plane.http.get(f"/api/environments/{zenith['id']}").status_code == 200


def test_a_broken_document_is_still_shown_after_a_restart(plane: ControlPlane) -> None:
    acme = plane.environment_of("acme")
    wait_until_read(plane, plane.clone.push({ACME: GOOD.replace("spec:", "spec: [")}))

    plane.kill()
    plane.restart()

    shown = plane.http.get(f"/api/environments/{acme['id']}")
    assert shown.status_code == 200, shown.text
    refused = plane.http.post(f"/api/environments/{acme['id']}/cache/purge")
    assert refused.status_code == 409, refused.text
    assert [row["environment"] for row in status(plane)["environments"]] == ["acme/production", "zenith/production"]
    wait_until_read(plane, plane.clone.push({ACME: GOOD}, "Put it right"))


def test_a_broken_node_keeps_its_environments_untouched(plane: ControlPlane) -> None:
    acme = plane.environment_of("acme")
    before = plane.clone.read("nodes/web-1.yaml")
    wait_until_read(plane, plane.clone.push({"nodes/web-1.yaml": before.replace("address:", "adress:")}))

    assert "nodes/web-1.yaml" in {stalled["path"] for stalled in status(plane)["stalled"]}
    assert plane.http.get(f"/api/environments/{acme['id']}").status_code == 200
    created = plane.http.post("/api/sites", json={"name": "New", "slug": "new"})
    assert (created.status_code, created.json()["code"]) == (409, "no_node_available")

    wait_until_read(plane, plane.clone.push({"nodes/web-1.yaml": before}, "Put it right"))
    assert status(plane)["stalled"] == []
