"""`trueup serve` makes a report that a client asks for and sends it by itself, beside a receiver that says nothing."""

from __future__ import annotations

import json

from tests.controlplane import MakeControlPlane, closed_port, control_plane, fresh_home, node_document, site_documents
from tests.controlplane import until as wait_until
from tests.reports.receivers import silent, web_server

__all__ = ["control_plane", "fresh_home"]


def test_made_and_sent_while_another_receiver_says_nothing(control_plane: MakeControlPlane) -> None:
    with web_server() as hook, silent() as (port, arrived):
        urls = (f"http://127.0.0.1:{port}/", hook.url)
        spec = {"reports": {"targets": [{"type": "webhook", "url": url} for url in urls]}}
        platform = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": spec}
        documents = {"nodes/web-1.yaml": node_document(port=closed_port()), **site_documents("acme")}
        plane = control_plane({**documents, "platform.yaml": json.dumps(platform)})
        wait_until(lambda: plane.http.get("/api/nodes").json()[0]["status"] == "unreachable", "a look at the node")
        job = plane.wait_job(plane.http.post("/api/drift-reports").json()["job_id"])
        assert job["status"] == "succeeded", job
        url = f"/api/drift-reports/{job['id']}"
        assert "Unreachable since" in plane.http.get(url, headers={"Accept": "text/html"}).text
        wait_until(lambda: bool(hook.requests), "the report to arrive", told=plane.log)
        wait_until(arrived.is_set, "the other to be tried", told=plane.log)

        def statuses() -> list[str]:
            return sorted(one["status"] for one in plane.http.get(url).json()["deliveries"])

        wait_until(lambda: statuses() == ["sent", "uncertain"], "both to be settled", told=plane.log)
        body = hook.requests[0].data
        assert (body["report"]["id"], body["requested_by"]) == (job["id"], "admin@example.com")
        assert len(hook.requests) == 1
        told = json.loads(plane.cli("status", "-o", "json").stdout)["reports"]
        assert [one["status"] for one in told].count("uncertain") == 1
        assert "report to webhook" in plane.cli("status").stdout
