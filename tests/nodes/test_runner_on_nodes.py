"""The runner against real nodes: pinned keys, silence, and what must not outlive its job."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.core.entries import Document, parse
from reconciler.core.fleet import Fleet, assemble
from reconciler.core.manifests import Node as NodeManifest
from reconciler.inventory import Inventory, inventory_of
from reconciler.nodes.connection import Connections
from reconciler.nodes.runner import Runner, RunResult
from reconciler.nodes.target import Target
from tests.lab import Lab, Node
from tests.lab.fixtures import MakeNode
from tests.nodes.parents import answering
from tests.proof import sampled

pytestmark = pytest.mark.lab


@pytest.fixture
def connections() -> Iterator[Connections]:
    with Connections() as connections:
        yield connections


@pytest.fixture(params=[pytest.param("plain", marks=pytest.mark.long), "warm"])
def runner(tmp_path: Path, connections: Connections, request: pytest.FixtureRequest) -> Iterator[Runner]:
    with capture_logs() as logs:
        runner = Runner(tmp_path / "run", connections, warm=request.param == "warm")
        if runner.warm_pid:
            answering(tmp_path / "run")
        yield runner
        runner.close()
    assert [entry for entry in logs if entry["log_level"] == "warning"] == []


def fleet_of(node: Node, **ssh: Any) -> Fleet:
    spec = {"address": node.address, "ssh": {"host_key": node.host_key, **ssh}}
    data = {"apiVersion": "trueup/v1", "kind": "Node", "metadata": {}, "spec": spec}
    NodeManifest.model_validate(data)
    return assemble("r", [parse(Document("nodes/web.yaml", data, lambda _: None))])


def inventory_for(node: Node, lab: Lab, **ssh: Any) -> Inventory:
    return inventory_of(fleet_of(node, **ssh), key_file=lab.private_key_file, artifacts={})


def target_for(node: Node, lab: Lab) -> Target:
    return Target.of(next(iter(fleet_of(node).nodes.values())), lab.private_key_file)


def play(runner: Runner, tmp_path: Path, inventory: Inventory, *argv: str, **options: Any) -> RunResult:
    task = {"name": "Do it", "ansible.builtin.command": {"argv": argv}}
    (tmp_path / "playbook.yml").write_text(json.dumps([{"hosts": "nodes", "tasks": [task]}]))
    return runner.run(tmp_path / "playbook.yml", inventory, **{"job": "job-1", "timeout_s": 300, **options})


def test_a_play_reaches_a_node_by_its_pinned_key(runner: Runner, tmp_path: Path, bare_node: Node, lab: Lab) -> None:
    result = play(runner, tmp_path, inventory_for(bare_node, lab), "hostname")
    assert result.status == "succeeded", result.output
    assert result.results[0].data["stdout"] == bare_node.name


def test_another_host_key_is_refused(
    runner: Runner, tmp_path: Path, bare_node: Node, make_node: MakeNode, lab: Lab
) -> None:
    other = make_node("nn-other")
    result = play(runner, tmp_path, inventory_for(bare_node, lab, host_key=other.host_key), "touch", "/tmp/reached")
    assert (result.status, result.error_code) == ("failed", "ANSIBLE_HOST_UNREACHABLE")
    assert "Host key verification failed" in result.message
    assert not bare_node.ssh("ls /tmp/reached", check=False).stdout


@pytest.mark.long
def test_a_silent_node_is_unreachable_before_the_job_s_time_is_up(
    runner: Runner, tmp_path: Path, make_node: MakeNode, lab: Lab
) -> None:
    node = make_node("nn-dark")
    node.freeze("link")
    result = play(runner, tmp_path, inventory_for(node, lab), "true")
    assert (result.status, result.error_code) == ("failed", "ANSIBLE_HOST_UNREACHABLE")


SCOPED = (
    "busctl call -q org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager "
    'StartTransientUnit "ssa(sv)a(sa(sv))" trueup-{job}.scope fail 1 PIDs au 1 $$ 0; '
    "until grep -q trueup /proc/$$/cgroup; do :; done; sleep 4242"
)
"""systemd moves the process after it has answered: who doesn't wait leaves children outside of the unit."""


@pytest.mark.parametrize("end", sampled(["cancel", "timeout"]))
def test_what_runs_on_the_node_ends_with_its_job(
    runner: Runner, tmp_path: Path, bare_node: Node, lab: Lab, end: str
) -> None:
    cancel, results = threading.Event(), []
    script = SCOPED.format(job="job-1")
    began = time.monotonic()
    assert play(runner, tmp_path, inventory_for(bare_node, lab), "true").status == "succeeded"
    enough_s = 2 + 3 * (time.monotonic() - began)

    def run() -> None:
        results.append(
            play(
                runner,
                tmp_path,
                inventory_for(bare_node, lab),
                "sh",
                "-c",
                script,
                cancel=cancel,
                targets=[target_for(bare_node, lab)],
                timeout_s=600 if end == "cancel" else enough_s,
            )
        )

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(bare_node, "sleep 4242")
    if end == "cancel":
        cancel.set()
    thread.join(300)
    assert results[0].status == {"cancel": "cancelled", "timeout": "timed_out"}[end]
    assert results[0].remote_stopped is True
    assert bare_node.ssh("pgrep -f '^sleep 4242'", check=False).stdout == ""


def wait_for(node: Node, command: str) -> None:
    deadline = time.monotonic() + 180
    while not node.ssh(f"pgrep -f '^(/usr/bin/)?{command}'", check=False).stdout:
        assert time.monotonic() < deadline, f"{command} never ran"
        time.sleep(0.1)


def test_sweep_stops_what_a_dead_worker_left_on_the_node(
    runner: Runner, bare_node: Node, lab: Lab, connections: Connections
) -> None:
    bare_node.ssh("setsid systemd-run -q --scope --unit=trueup-job-9.scope sleep 4343 >/dev/null 2>&1 </dev/null &")
    bare_node.ssh("setsid systemd-run -q --scope --unit=trueup-job-8.scope sleep 4444 >/dev/null 2>&1 </dev/null &")
    wait_for(bare_node, "sleep 4343")
    wait_for(bare_node, "sleep 4444")
    runner.sweep("job-9", [target_for(bare_node, lab)])
    assert bare_node.ssh("pgrep -f 'sleep 434[3]'", check=False).stdout == ""
    assert bare_node.ssh("pgrep -f 'sleep 444[4]'", check=False).stdout != ""
    runner.sweep("job-8", [target_for(bare_node, lab)])


def test_a_node_that_cannot_be_asked_is_not_reported_stopped(
    runner: Runner, tmp_path: Path, bare_node: Node, lab: Lab
) -> None:
    closed = dataclasses.replace(target_for(bare_node, lab), port=2)
    result = play(runner, tmp_path, inventory_for(bare_node, lab), "sleep", "5", timeout_s=3, targets=[closed])
    assert (result.status, result.remote_stopped) == ("timed_out", False)
