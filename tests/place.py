"""A control plane with real nodes, and what tests do with the sites on them, through the API and from outside."""

import base64
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from reconciler.core.jobs import JobType
from reconciler.core.status import BUSY
from tests.controlplane import WITH_NODES, ControlPlane, MakeControlPlane, document_of, until
from tests.lab import Lab, Node
from tests.lab.fixtures import unique_name
from tests.proof import count

AROUND = {"TRUEUP_OBSERVE_INTERVAL_S": str(count(short=5, full=3)), "TRUEUP_LEASE_S": "15"}
"""How often each node is asked how it is: the tests of one process share theirs, and are at work on one of them. And
how long a machine may stand still before a job is taken for one whose worker has died.
"""
CLOSED = """  reconcile:
    windows:
      - {kind: deny, cron: "* * * * *", minutes: 1}
"""


@dataclass
class Place:
    """A control plane with two nodes."""

    plane: ControlPlane
    nodes: dict[str, Node]

    def make_site(self, slug: str, name: str | None = None) -> dict[str, Any]:
        """A site that answers: its environment."""
        job = self.ended(self.plane.create_site(slug, name)["id"])
        assert job["status"] == "succeeded", job
        return self.plane.environment_of(slug)

    def node_of(self, environment: dict[str, Any]) -> Node:
        named = {node["id"]: node["name"] for node in self.plane.http.get("/api/nodes").json()}
        return self.nodes[named[environment["node_id"]]]

    def page(self, environment: dict[str, Any], path: str = "/") -> httpx.Response:
        host = environment["preview_url"].partition("://")[2]
        return self.node_of(environment).fetch(path, host=host)

    def manifest(self, environment: dict[str, Any]) -> dict[str, Any]:
        path = f"/etc/trueup/environments/{environment['id']}.json"
        found: dict[str, Any] = json.loads(self.node_of(environment).ssh(["cat", path]).stdout)
        return found

    def sql(self, environment: dict[str, Any], query: str) -> str:
        database = "wp_" + environment["id"].replace("-", "")[:12]
        return self.node_of(environment).ssh(["mariadb", "-N", "--raw", database, "-e", query]).stdout.strip()

    def block(self, environment: dict[str, Any]) -> str:
        return f"/etc/nginx/sites-enabled/trueup-{environment['id']}.conf"

    def export(self, environment: dict[str, Any]) -> bytes:
        """What an export plugin would make: a dump, all of wp-content with what its links lead to, and the address."""
        database = "wp_" + environment["id"].replace("-", "")[:12]
        script = (
            f"d=$(mktemp -d); cat > $d/meta.json; mariadb-dump --hex-blob --ignore-table={database}.trueup_content "
            f"{database} > $d/db.sql; tar -chz --transform 's,^wp-content,files,' -C $d meta.json db.sql "
            f"-C /var/www/sites/{environment['id']}/current wp-content | base64; rm -rf $d"
        )
        meta = json.dumps({"source_url": environment["preview_url"]})
        return base64.b64decode(self.node_of(environment).ssh(script, input=meta).stdout)

    def close(self, slug: str) -> None:
        """From now on the loop applies nothing to the site's production by itself; until `open`."""
        path = f"sites/{slug}/environments/production.yaml"
        self.plane.clone.push({path: self.plane.clone.read(path) + CLOSED}, "Close the window")

    def open(self, slug: str) -> None:
        self.plane.clone.replace(f"sites/{slug}/environments/production.yaml", CLOSED, "")

    def touch_block(self, environment: dict[str, Any]) -> None:
        self.node_of(environment).ssh(f"echo '# by hand' >> {self.block(environment)}")

    def is_touched(self, environment: dict[str, Any]) -> bool:
        grep = ["grep", "-q", "by hand", self.block(environment)]
        return self.node_of(environment).ssh(grep, check=False).returncode == 0

    @contextlib.contextmanager
    def databases_held(self) -> Iterator[None]:
        """Nobody's statement comes to an end: whoever works on a node is in the middle of it."""
        for node in self.nodes.values():
            node.ssh(["systemctl", "kill", "--signal=STOP", "mariadb.service"])
        try:
            yield
        finally:
            for node in self.nodes.values():
                node.ssh(["systemctl", "kill", "--signal=CONT", "mariadb.service"])

    def run(self, answer: httpx.Response) -> dict[str, Any]:
        """The job of an accepted request, finished."""
        assert answer.status_code == 202, answer.text
        return self.ended(answer.json()["job_id"])

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job, finished, once its environment is told so: that is written a moment later."""
        job = self.plane.wait_job(job_id)
        until(lambda: self._is_told(job), "the environment to be told", told=lambda: f"{job}\n{self.plane.log()}")
        return job

    def _is_told(self, job: dict[str, Any]) -> bool:
        if job["environment_id"] is None:
            return True
        answer = self.plane.http.get(f"/api/environments/{job['environment_id']}")
        if answer.status_code == 404 or answer.json()["status"] not in BUSY:
            return True
        others = self.plane.http.get("/api/jobs", params={"environment_id": job["environment_id"]}).json()
        at_work = (one for one in others if one["status"] in {"queued", "running"})
        return any(one["job_type"] != JobType.HEALTH_CHECK for one in at_work)


@contextlib.contextmanager
def placed(lab: Lab, snapshot: str, make: MakeControlPlane, names: tuple[str, ...], **settings: str) -> Iterator[Place]:
    """A control plane of its own with provisioned nodes of these names."""
    plane = make(**{"TRUEUP_WORKERS": "3", **AROUND, **WITH_NODES, **settings})
    key = (plane.home / "ssh" / "id_ed25519.pub").read_text().strip()
    with contextlib.ExitStack() as stack:
        nodes = {}
        for name in names:
            nodes[name] = lab.up(unique_name(name), key, snapshot=snapshot)
            stack.callback(nodes[name].down)
        stack.callback(plane.close)
        plane.clone.push({f"nodes/{name}.yaml": document_of(node) for name, node in nodes.items()}, "Add the nodes")

        def ready() -> bool:
            return {node["status"] for node in plane.http.get("/api/nodes").json()} == {"active"}

        until(ready, "the nodes to be provisioned", told=plane.log)
        yield Place(plane, nodes)
