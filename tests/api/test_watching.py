"""Nodes, counters, readiness, Prometheus, and the pages that explain the API."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from reconciler.core.observed import Applied, ObservedNode, Unreachable
from tests.api.control import Control, assert_error, control_at

REMOTE = "203.0.113.5"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SEEN = ObservedNode(
    observed_at=NOW,
    hostname="web-1",
    os_id="debian",
    os_version="12",
    memory_bytes=2**31,
    disk_free_bytes=10**10,
    disk_size_bytes=10**11,
    versions={"nginx": "1.22.1"},
    applied=Applied(format=1, variables={}, digest="d", role_digest="r", files={}, applied_at=NOW),
)


def observe(control: Control, answer: ObservedNode | Unreachable) -> None:
    [node] = control.state.fleet().nodes
    control.records.observations.save(node, answer, control.clock())


def test_a_node_nobody_looked_at(client: TestClient) -> None:
    [node] = client.get("/api/nodes").json()
    assert (node["name"], node["status"], node["address"]) == ("web-1", "provisioning", "192.0.2.1")
    assert (node["observed_at"], node["os"], node["versions"], node["environments"]) == (None, None, {}, 0)


def test_a_node_that_answered_and_then_did_not(control: Control, client: TestClient) -> None:
    observe(control, SEEN)
    [node] = client.get("/api/nodes").json()
    assert (node["status"], node["os"], node["versions"]) == ("active", "debian 12", {"nginx": "1.22.1"})
    assert node["observed_at"] == "2026-01-02T03:04:05Z"
    observe(control, Unreachable(since=NOW, reason="Connection refused"))
    [node] = client.get("/api/nodes").json()
    assert (node["status"], node["unreachable_reason"]) == ("unreachable", "Connection refused")
    assert node["memory_bytes"] == 2**31


def test_counters(control: Control, client: TestClient) -> None:
    empty = {"jobs_running": 0, "jobs_queued": 0, "nodes_active": 0, "sites_total": 0}
    assert client.get("/api/metrics").json() == empty
    observe(control, SEEN)
    control.create_site("acme")
    control.create_site("globex")
    expected = {"jobs_running": 0, "jobs_queued": 2, "nodes_active": 1, "sites_total": 2}
    assert client.get("/api/metrics").json() == expected


def test_alive_and_ready_need_no_session(control: Control) -> None:
    client = control.client(REMOTE)
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_not_ready_with_a_broken_database_but_alive(control: Control) -> None:
    control.records.engine.dispose()
    with (control.home / "trueup.db").open("r+b") as file:
        file.write(os.urandom(4096))
    client = control.client(REMOTE)
    message = assert_error(client.get("/readyz"), 503, "not_ready")
    assert str(control.home) not in message
    assert client.get("/healthz").status_code == 200


def test_not_ready_without_a_store(control: Control) -> None:
    control.repository.close()
    (control.home / "store.git").rename(control.home / "elsewhere.git")
    assert_error(control.client().get("/readyz"), 503, "not_ready")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_not_ready_on_a_full_disk(tmp_path: Path, fresh_home: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)], check=True)
    try:
        shutil.copytree(fresh_home, disk / "home")
        with control_at(disk / "home") as control:
            assert control.client().get("/readyz").status_code == 200
            (disk / "filler").write_bytes(bytes(30 * 2**20))
            assert "MiB" in assert_error(control.client().get("/readyz"), 503, "not_ready")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_prometheus_on_this_host(control: Control) -> None:
    control.create_site("acme")
    control.session().get(f"/api/sites/{uuid4()}")
    response = control.client().get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    assert 'trueup_jobs{status="queued"} 1.0' in lines
    assert 'trueup_sites{status="deploying"} 1.0' in lines
    assert 'trueup_environments_drift{drift="unknown"} 1.0' in lines
    # Routes, never paths: ids would make a series each.
    assert 'trueup_http_request_seconds_count{method="GET",route="/api/sites/{id}",status="404"} 1.0' in lines


def test_made_up_methods_make_no_series(control: Control) -> None:
    for number in range(5):
        control.client().request(f"X{number}", "/api/sites")
    text = control.client().get("/metrics").text
    assert len(re.findall(r'_count\{method="other"', text)) == 1
    assert 'method="X' not in text


@pytest.mark.parametrize(
    ("peer", "headers"),
    [(REMOTE, {}), ("127.0.0.1", {"X-Forwarded-For": REMOTE}), ("127.0.0.1", {"Forwarded": f"for={REMOTE}"})],
    ids=["remote", "through a proxy", "through another proxy"],
)
def test_prometheus_from_elsewhere_needs_a_session(control: Control, peer: str, headers: dict[str, str]) -> None:
    assert_error(control.client(peer, **headers).get("/metrics"), 401, "unauthorized")
    assert control.session(peer).get("/metrics", headers=headers).status_code == 200


def test_the_contract_is_served_and_the_generated_schema_is_not(control: Control) -> None:
    client = control.client(REMOTE)
    assert client.get("/api/openapi.json").json()["info"]["title"] == "Trueup API"
    assert client.get("/openapi.json").status_code == 404


def test_the_pages_come_from_here_alone(control: Control) -> None:
    client = control.client(REMOTE)
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(sources) == 3
    for source in sources:
        asset = client.get(source)
        assert asset.status_code == 200, source
        assert asset.headers["content-type"].partition(";")[0] in {"text/css", "text/javascript"}
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "/api/openapi.json" in client.get("/docs/start.js").text
