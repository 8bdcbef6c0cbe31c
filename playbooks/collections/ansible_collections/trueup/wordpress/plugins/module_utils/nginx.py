# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Which of nginx's workers take new connections.

After a reload new workers and former ones listen side by side, until each former one has read the master's order to
end: on a busy node for so long that a request may still be answered as it was before.
"""

from __future__ import annotations

import contextlib
import os
import time

PID = "/run/nginx.pid"
SECONDS = 10
ENDING = b"shutting down"


def accepting():
    """Pids of the master's workers that have not been ordered to end."""
    try:
        with open(PID, encoding="ascii") as file:
            master = int(file.read())
    except (FileNotFoundError, ValueError):
        return set()
    return {int(name) for name in os.listdir("/proc") if name.isdigit() and _is_accepting(name, master)}


def until_replaced(workers):
    """Return once none of these workers takes a new connection; whether it came to that in time."""
    deadline = time.monotonic() + SECONDS
    while workers & accepting():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_accepting(pid, master):
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
        if parent == master:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                title = file.read()
            return b"worker process" in title and ENDING not in title
    return False
