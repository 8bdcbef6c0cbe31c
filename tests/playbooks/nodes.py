"""Provisions a lab node as an operator would: the real playbook, a static inventory, the repository's ansible.cfg.

Of each playbook, a process's first run is a plain ``ansible-playbook``, and so is one with settings of its own; the
others are forks of one that is there.
"""

import functools
import json
import os
import re
import shutil
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
from reconciler.nodes.warm.process import WarmAnsible
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
    inventory, note = directory / "inventory.json", directory / "plain.txt"
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory", str(inventory), *options]
    argv.append(str(PLAYBOOKS / f"{name}.yml"))
    # A fork has the settings that its parent began with.
    warm = _warm() if name in _plainly and not any(one.startswith("ANSIBLE_") for one in os.environ) else None
    _plainly.add(name)
    started = time.monotonic()
    with _sockets() as sockets:
        reached = {"ansible_control_path_dir": str(sockets)}
        inventory.write_text(json.dumps({"nodes": {"hosts": hosts, "vars": reached}}))
        done = subprocess.run(
            warm.command(argv, note) if warm else argv,
            cwd=share(),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=550,
            check=False,
        )
    # Where the parent is late on a busy machine, the run is a plain one; a refusal would make every run one.
    why = warm.noted(note) if warm else None
    assert not (why or "").startswith("refused"), why
    note.unlink(missing_ok=True)
    return Run(done.returncode, done.stdout, time.monotonic() - started)


PLAYBOOKS = share() / "playbooks"
_plainly: set[str] = set()
"""The playbooks that this process has run plainly."""
_directories: list[Path] = []


def _environment() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_CONFIG": str(share() / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


@functools.cache
def _warm() -> WarmAnsible:
    """This process's parent of runs, until `end_warm_ansible`."""
    runs = Path(tempfile.mkdtemp(prefix="trueup-warm-"))
    _directories.append(runs)
    return WarmAnsible(runs, PLAYBOOKS, lambda home: {**_environment(), "HOME": str(home)})


def end_warm_ansible() -> None:
    """End it, if it was ever started."""
    if _directories:
        _warm().close()
        _warm.cache_clear()
        shutil.rmtree(_directories.pop())


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
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
