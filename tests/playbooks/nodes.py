"""Provisions a lab node as an operator would: the real playbook, a static inventory, the repository's ansible.cfg."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.artifacts.pins import Archive
from reconciler.core.variables import Job, NodeVariables
from reconciler.paths import share
from tests.lab import Lab, Node


@dataclass(frozen=True)
class Run:
    """What `ansible-playbook` said."""

    status: int
    output: str
    seconds: float

    def count(self, word: str) -> int:
        """A number of the recap: ok, changed, unreachable, failed, skipped …; of the only host."""
        found = re.search(rf"^\S+\s+:.*\b{word}=(\d+)", self.output, re.MULTILINE)
        assert found, self.output
        return int(found.group(1))

    @property
    def changed(self) -> int:
        return self.count("changed")

    def raise_if_failed(self) -> "Run":
        assert self.status == 0, self.output
        return self


def node_variables(node: Node, **overrides: Any) -> dict[str, Any]:
    """`trueup_node` for a lab node."""
    base = {
        "id": "6f9619ff-8b86-4d11-b42d-00c04fc964ff",
        "name": node.name,
        "address": node.address,
        "ssh_port": node.ssh_port,
        "redis_memory_percent": 10,
        "wordpress_version": "7.1.1",
    }
    variables = NodeVariables.model_validate({**base, **overrides})
    return variables.model_dump(mode="json", exclude={"job"})


def host_variables(lab: Lab, node: Node, wp_cli: Archive, **overrides: Any) -> dict[str, Any]:
    """All that an inventory says of a lab node."""
    return {
        "ansible_host": node.address,
        "ansible_port": node.ssh_port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(lab.private_key_file),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={node.directory / 'known_hosts'}",
        "trueup_node": node_variables(node, **overrides),
        "trueup_artifacts": {
            "wp_cli": {"version": wp_cli.version, "path": str(wp_cli.path), "sha256": wp_cli.sha256},
            "wordpress": {},
        },
    }


def run_playbook(name: str, hosts: Mapping[str, Any], directory: Path, *options: str) -> Run:
    """Run a playbook of ours on a static inventory; `directory` is the caller's for files."""
    directory.mkdir(parents=True, exist_ok=True)
    inventory = directory / "inventory.json"
    inventory.write_text(json.dumps({"nodes": {"hosts": hosts}}))
    argv = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        *("--inventory", str(inventory), *options, f"playbooks/{name}.yml"),
    ]
    started = time.monotonic()
    with _sockets() as sockets:
        done = subprocess.run(
            argv,
            cwd=share(),
            env={**os.environ, "ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
    return Run(done.returncode, done.stdout, time.monotonic() - started)


def provision(
    lab: Lab,
    node: Node,
    directory: Path,
    wp_cli: Archive,
    *options: str,
    job: Job | None = None,
    **overrides: Any,
) -> Run:
    """Run `playbooks/node.yml` on a lab node; `overrides` change fields of `trueup_node`."""
    hosts = {node.name: host_variables(lab, node, wp_cli, **overrides)}
    told = ("--extra-vars", json.dumps({"trueup_job": job.model_dump()})) if job else ()
    return run_playbook("node", hosts, directory, *told, *options)


@contextmanager
def _sockets() -> Iterator[Path]:
    """A place for ssh's shared connections, ended with the run: the next node may have this one's address."""
    with tempfile.TemporaryDirectory(prefix="trueup-ssh-", dir="/tmp") as name:
        yield Path(name)
        for socket in Path(name).iterdir():
            argv = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "none"]
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)
