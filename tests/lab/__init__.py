"""Disposable servers: real Debian, real systemd, real sshd, each in its own network namespace.

By hand: `python -m tests.lab up demo --persist`, then `ssh demo`, `down demo`; `doctor` says what is missing.

    lab = Lab()
    node = lab.up("web", authorized_key=public_key_line)   # about a second; several at once: lab.up_all([...])
    node.address, node.host_key                            # what to put into its document
    node.ssh(["systemctl", "is-active", "nginx"]).stdout
    node.fetch("/", host="www.example.com").text
    node.freeze(); node.thaw(); node.reboot()
    key = lab.ensure_snapshot("provisioned-<hash>", provision)   # provision(node) runs once per machine and key
    copy = lab.up("web-2", snapshot=key)
    lab.close()

Nothing here knows what Trueup does with a node.
"""

from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.paths import LabError

__all__ = ["Lab", "LabError", "Node"]
