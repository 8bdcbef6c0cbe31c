"""Disposable servers: real Debian, real systemd, real sshd, each in its own network namespace.

`Lab.up` gives a node in about a second; nothing here knows what Trueup does with it.
"""

from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.paths import LabError

__all__ = ["Lab", "LabError", "Node"]
