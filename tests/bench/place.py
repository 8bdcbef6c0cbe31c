"""A control plane that serves and one provisioned node: what measurements on nodes stand on."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.home import Home, clock, create
from reconciler.settings import Settings
from tests.controlplane import AUTHOR, EMAIL, PASSWORD, ControlPlane
from tests.lab.lab import Lab
from tests.lab.node import Node


@contextmanager
def served(say: Callable[[str], None]) -> Iterator[tuple[ControlPlane, Node]]:
    """The loop looks at the node once an hour, so that it is not what is measured."""
    with tempfile.TemporaryDirectory(prefix="tb-") as directory:
        home, lab = Path(directory) / "h", Lab()
        create(Settings(home=home), AUTHOR)
        with Home.open(Settings(home=home)) as opened:
            opened.records.admins.set_password(EMAIL, PASSWORD, clock())
        plane = ControlPlane(home, TRUEUP_OBSERVE_INTERVAL_S="3600")
        node = lab.up(f"bench-{os.getpid()}", (home / "ssh" / "id_ed25519.pub").read_text().strip())
        try:
            plane.command("fetch")
            plane.start().login()
            say("Provisioning a node")
            plane.command(
                "node", "add", "web-1", "--address", node.address, "--fingerprint", _fingerprint(node), "--wait"
            )
            yield plane, node
        finally:
            plane.close()
            node.down()


def _fingerprint(node: Node) -> str:
    argv = ["ssh-keygen", "-lf", "-"]
    return subprocess.run(argv, input=node.host_key, capture_output=True, text=True, check=True).stdout.split()[1]


def put(node: Node, source: Path, target: str) -> None:
    with source.open("rb") as file:
        subprocess.run([*node.ssh_command(), f"cat > {target}"], stdin=file, check=True)
