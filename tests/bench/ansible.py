"""What Ansible takes of the control plane's host: forked from a parent that has it imported, beside started anew."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from reconciler.artifacts.pins import host_variables
from reconciler.home import Home
from reconciler.inventory import Inventory, inventory_of
from reconciler.nodes.runner import Runner
from reconciler.settings import Settings
from tests.bench.measure import Line
from tests.bench.place import served
from tests.controlplane import ControlPlane, until

SAMPLES = 9
PLAIN = "ansible-playbook started anew"
Run = Callable[[Runner], None]


def run(say: Callable[[str], None]) -> Iterator[Line]:
    with served(say) as (plane, _):
        assert plane.wait_job(plane.create_site("idle")["id"])["status"] == "succeeded"
        plane.terminate()
        with tempfile.TemporaryDirectory(prefix="tb-") as top:
            yield from _compared(plane, Path(top), say)


def _compared(plane: ControlPlane, top: Path, say: Callable[[str], None]) -> Iterator[Line]:
    plain, warm = Runner(top / "plain"), Runner(top / "warm", warm=True)
    try:
        for what, work in {"an empty play": _empty(top), "environment.yml that changes nothing": _no_op(plane)}.items():
            say(f"Running {what}")
            # In turn, so that neither gets the warmer machine; the first of each warms up.
            taken = [(_taken(warm, work), _taken(plain, work)) for _ in range(SAMPLES + 1)][1:]
            for number, unit in enumerate(("wall", "CPU of the host")):
                ours, theirs = (statistics.median(pair[way][number] for pair in taken) for way in (0, 1))
                yield Line(f"{what}, {unit}", ours, "s", "≤ 0.5×", theirs, PLAIN)
    finally:
        plain.close()
        warm.close()


def _taken(runner: Runner, work: Run) -> tuple[float, float]:
    """Seconds by the clock and of the processor, those of the runner's part in this process included."""
    began, used = time.perf_counter(), _cpu(runner)
    work(runner)
    took = time.perf_counter() - began
    if runner.warm_pid:  # what a run used is its parent's once that has waited for it
        until(lambda: not _children(runner.warm_pid), "the parent to wait for its run")
    return took, _cpu(runner) - used


def _cpu(runner: Runner) -> float:
    ours = sum(os.times()[:4])
    if not runner.warm_pid:
        return ours
    fields = Path(f"/proc/{runner.warm_pid}/stat").read_text().rpartition(")")[2].split()
    return ours + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int | None) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def _empty(top: Path) -> Run:
    playbook = top / "empty.yml"
    playbook.write_text(json.dumps([{"hosts": "nodes", "tasks": []}]))
    here = Inventory({"here": {"ansible_connection": "local"}}, {"nodes": ("here",)})

    def work(runner: Runner) -> None:
        # A play without a task has no host in its statistics: that is no success.
        assert runner.run(playbook, here, job="bench", timeout_s=120).error_code == "ANSIBLE_UNEXPECTED_ERROR"

    return work


def _no_op(plane: ControlPlane) -> Run:
    with Home.open(Settings(home=plane.home)) as home:
        (environment,) = home.state.fleet().environments.values()
        inventory = inventory_of(
            home.state.fleet(),
            key_file=home.settings.ssh_key,
            artifacts=host_variables(home.settings.artifacts),
            environment_id=environment.id,
        )
    more = {"environment": environment.key, "trueup_certify": []}

    def work(runner: Runner) -> None:
        done = runner.run("environment.yml", inventory, job="bench", timeout_s=120, extra_vars=more)
        assert (done.ok, done.changed) == (True, 0), done.output

    return work
