"""A look at fifty sites, on a lab node, beside a playbook that does the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from reconciler.artifacts.pins import host_variables
from reconciler.home import Home, clock
from reconciler.inventory import inventory_of
from reconciler.loop.tools import Tools
from reconciler.nodes.connection import Connections
from reconciler.settings import Settings
from tests.bench.measure import Line, seconds
from tests.bench.place import served
from tests.controlplane import ControlPlane
from tests.lab.node import Node

ENVIRONMENTS = 50
LOOKS = 10
DEEP_LOOKS = 3
EVERY_FILE = "find /var/www/sites/*/releases /var/www/sites/*/shared -type f -exec sha256sum {} + | sha256sum"


def run(say: Callable[[str], None]) -> Iterator[Line]:
    with served(say) as (plane, node):
        say(f"Making sites until there are {ENVIRONMENTS}")
        _fill(plane)
        plane.terminate()
        say("Looking at them")
        yield from _looks(plane, node)


def _fill(plane: ControlPlane) -> None:
    there = len(plane.http.get("/api/sites").json())
    jobs = [plane.create_site(f"more{number}")["id"] for number in range(ENVIRONMENTS - there)]
    for job in jobs:
        assert plane.wait_job(job, patience_s=600)["status"] == "succeeded"


def _looks(plane: ControlPlane, node: Node) -> Iterator[Line]:
    settings = Settings(home=plane.home)
    with Home.open(settings) as home:
        tools = Tools(settings, home.state, Connections(), clock)
        try:
            _cycle(tools)
            cycle = seconds(lambda: _cycle(tools), LOOKS)
            _cycle(tools, deep=True)
            deep = seconds(lambda: _cycle(tools, deep=True), DEEP_LOOKS)
        finally:
            tools.close()
        plain = seconds(lambda: _by_playbook(home, Path(plane.home)))
    what = f"no-op cycle over a node with {ENVIRONMENTS} environments"
    yield Line(what, cycle, "s", "≤ 1 s, one round trip", plain, "one playbook with wp-cli")
    hashed = seconds(lambda: node.ssh(EVERY_FILE), DEEP_LOOKS)
    what = f"drift check of {ENVIRONMENTS} environments, files included"
    yield Line(what, deep, "s", "", hashed, "find and sha256sum on the node")


def _cycle(tools: Tools, *, deep: bool = False) -> None:
    fleet = tools.state.fleet()
    answers = tools.observe(fleet.nodes.values(), deep=deep)
    plan = tools.decide(fleet, answers)
    assert len(fleet.environments) == ENVIRONMENTS
    assert plan.is_empty, plan.steps[:2]


def _by_playbook(home: Home, directory: Path) -> None:
    """What an Ansible repository does to know the same: each environment's version and each one's unit."""
    play = [
        {
            "hosts": "all",
            "gather_facts": False,
            "tasks": [
                {
                    "name": "Ask each environment",
                    "ansible.builtin.command": {
                        "argv": ["/usr/local/bin/wp", "--allow-root", "--path={{ item }}/current", "core", "version"]
                    },
                    "loop": [f"/var/www/sites/{id_}" for id_ in home.state.fleet().environments],
                    "changed_when": False,
                }
            ],
        }
    ]
    inventory = inventory_of(
        home.state.fleet(), key_file=home.settings.ssh_key, artifacts=host_variables(home.settings.artifacts)
    )
    (directory / "plain.json").write_text(json.dumps(play))
    (directory / "hosts.json").write_text(json.dumps(inventory.as_file()))
    program = Path(sys.executable).with_name("ansible-playbook")
    argv = [str(program), "-i", str(directory / "hosts.json"), str(directory / "plain.json")]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=os.environ | {"ANSIBLE_PIPELINING": "1"}
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-500:])
