"""Playbooks run by hand beside a control plane, and once it is gone."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from ruamel.yaml import YAML

from reconciler.home import clock
from reconciler.operations.by_hand import Asked, OperatorRuns
from reconciler.operations.declaring import Actor
from reconciler.paths import share
from reconciler.records.queue import Queue
from tests.controlplane import MakeControlPlane, control_plane, run_git
from tests.lab import Lab, Node
from tests.place import Place, placed
from tests.test_docs import blocks

__all__ = ["control_plane"]

pytestmark = pytest.mark.lab

KEY = "left/production"
DOCUMENT = "sites/left/environments/production.yaml"
LEAVING = Path(__file__).parents[2] / "docs" / "leaving.md"


@pytest.fixture
def alone(lab: Lab, provisioned_snapshot: str, control_plane: MakeControlPlane) -> Iterator[Place]:
    """A control plane that the test may destroy, with a node."""
    with placed(lab, provisioned_snapshot, control_plane, ("web-1",)) as place:
        yield place


def by_hand(script: str, **variables: str) -> tuple[int, str]:
    """What somebody types in Trueup's directory, and what is answered."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRUEUP_", "ANSIBLE_"))}
    own = {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "SUDO_USER": "grace", "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=share(),
        env={**kept, **own, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=550,
        check=False,
    )
    return done.returncode, done.stdout


def touch(node: Node, path: str) -> None:
    node.ssh(f"echo '# by hand' >> {path}")


def is_touched(node: Node, path: str) -> bool:
    return node.ssh(["grep", "-q", "by hand", path], check=False).returncode == 0


@pytest.mark.long
def test_by_hand_beside_the_control_plane_and_after_it_is_gone(alone: Place) -> None:
    plane = alone.plane
    environment = alone.make_site("left")
    alone.close("left")
    run = f"ansible-playbook -i inventory playbooks/environment.yml -e environment={KEY}"
    home = str(plane.home)
    node, block = alone.nodes["web-1"], alone.block(environment)

    touch(node, block)
    with plane.opened() as opened:
        runs = OperatorRuns(opened.state, Queue(opened.records.engine), opened.dispatcher, clock, uuid4)
        asked = Asked("deploy.yml", Actor("ada", "ada@localhost"), UUID(environment["id"]))
        other = runs.begin(runs.ask(asked), in_line=True)
        assert other
        status, output = by_hand(run, TRUEUP_HOME=home, TRUEUP_BY_HAND_WAIT_S="1")
        assert status == 75, output
        assert f"Job {other.job.id} (operator-run: ada runs deploy.yml by hand) is at work there" in output
        assert is_touched(node, block)
        runs.end(other, {})
    status, output = by_hand(run, TRUEUP_HOME=home)
    assert status == 0, output
    assert not is_touched(node, block)
    jobs = plane.http.get(f"/api/jobs?environment_id={environment['id']}").json()
    mine = next(job for job in jobs if job["job_type"] == "operator-run")
    assert (mine["status"], mine["site_id"]) == ("succeeded", environment["site_id"])
    assert "by-hand:grace" in mine["locked_by"]

    # The control plane goes; its repository, its key and its archives are what somebody has kept.
    assert plane.terminate() == 0
    with tempfile.TemporaryDirectory(prefix="tu-", dir="/tmp") as top:
        fleet = Path(top, "fleet")
        for name in ("ssh", "artifacts"):
            shutil.copytree(plane.home / name, fleet / name)
        run_git(fleet, "clone", "-q", str(plane.store), "sites")
        shutil.rmtree(plane.home)

        touch(node, block)
        document = YAML(typ="safe").load((fleet / "sites" / DOCUMENT).read_text())
        document["spec"]["php"] = {"memory_limit_mb": 333}
        (fleet / "sites" / DOCUMENT).write_text(json.dumps(document))
        (script,) = (block for block in blocks(LEAVING.read_text(), "sh") if "ansible-playbook" in block)
        status, output = by_hand(script, HOME=top)
        assert (status, "FAILED" in output) == (0, False), output
        assert "No Trueup control plane is told of this run" in " ".join(output.split())
        assert not is_touched(node, block)
        applied = json.loads(node.ssh(["cat", f"/etc/trueup/environments/{environment['id']}.json"]).stdout)
        assert (applied["variables"]["php"]["memory_limit_mb"], applied["applied_by"]["job"]) == (333, None)

        status, output = by_hand(run, HOME=top, TRUEUP_HOME=str(fleet), TRUEUP_STORE=str(fleet / "sites"))
        assert status == 0, output
        assert "changed=0" in output
