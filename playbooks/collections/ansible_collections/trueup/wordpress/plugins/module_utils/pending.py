# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The mark on a node that files may be newer than what runs: ``/etc/trueup/node.pending``.

Whoever changes the first file writes it before, and the node's manifest ends it. So a run that was cut off before it
changed anything costs the next one no restart.
"""

from __future__ import annotations

import os

NODE = "/etc/trueup/node.pending"


def begun():
    """Whether a run has changed something and did not end."""
    return os.path.exists(NODE)


def begin(job):
    """Note that a change begins; ``job`` is None by hand, else has ``id``."""
    os.makedirs(os.path.dirname(NODE), mode=0o755, exist_ok=True)
    with open(NODE, "w", encoding="utf-8") as file:
        file.write(f"{job['id'] if job else 'by hand'}\n")
        file.flush()
        os.fsync(file.fileno())


def end():
    """Everything that was changed is in force and written down."""
    if os.path.exists(NODE):
        os.unlink(NODE)
