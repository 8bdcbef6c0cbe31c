"""A job that is cancelled while it runs: it stops, and another one puts right what it left."""

from typing import Any

from tests.controlplane import until
from tests.lab import Node
from tests.place import Place


def cancelled(place: Place, job_id: str) -> dict[str, Any]:
    """The job, cancelled in the middle of a task, or before the first; nothing of it runs on any node."""
    assert place.plane.http.post(f"/api/jobs/{job_id}/cancel").status_code == 202
    job = place.plane.wait_job(job_id)
    assert job["status"] == "cancelled", job
    told = [event["data"] for event in place.plane.http.get(f"/api/jobs/{job_id}/events").json()]
    tasks = [data for data in told if "task" in data]
    assert [data for data in tasks[-1:] if data["status"] in {"ok", "changed"}] == []
    # A process that was on its way into the job's scope ends when it sees there that the job was stopped.
    for node in place.nodes.values():
        until(lambda node=node: _running(node, job_id) == [], "the node to be left alone")  # type: ignore[misc]
    return job


def _running(node: Node, job_id: str) -> list[str]:
    """What runs for a job, or does the work of one."""
    scopes = node.ssh(["systemctl", "list-units", "--plain", "--no-legend", f"trueup-{job_id}.scope"]).stdout
    working = node.ssh("pgrep -a 'mariadb-dump|zstd|tar' || true").stdout
    return [*scopes.splitlines(), *working.splitlines()]


def follow_up(place: Place, job: dict[str, Any], job_type: str) -> dict[str, Any]:
    """The job that puts right what this one left."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        query = {"site_id": job["site_id"], "limit": 1}
        found[:] = place.plane.http.get("/api/jobs", params=query).json()
        return bool(found) and found[0]["job_type"] == job_type

    until(there, f"a {job_type}", told=place.plane.log)
    return place.plane.wait_job(found[0]["id"])
