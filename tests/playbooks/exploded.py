"""The code of the environment's module on a node, as files that a script there can import or run."""

import pytest

from tests.playbooks.environments import Hosting

DIRECTORY = "/root/exploded"


def exploded(hosting: Hosting, key: str) -> None:
    """Apply ``key``; afterwards the module's code and its arguments are in ``DIRECTORY`` on the node."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANSIBLE_KEEP_REMOTE_FILES", "1")
        patch.setenv("ANSIBLE_PIPELINING", "0")
        hosting.apply(key).raise_if_failed()
    found = hosting.node.ssh("ls -t /root/.ansible/tmp/*/AnsiballZ_environment.py | head -n1").stdout.strip()
    place = found.rpartition("/")[0]
    hosting.node.ssh(f"rm -rf {DIRECTORY}; python3 {found} explode >/dev/null; mv {place}/debug_dir {DIRECTORY}")
