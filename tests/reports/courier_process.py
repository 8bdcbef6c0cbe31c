"""Sends what is due of the reports of a home: a process for tests to kill."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from reconciler.loop.delivering import deliver
from reconciler.loop.tools import Tools
from tests.api.control import control_at
from tests.reports.desk import NOW

if __name__ == "__main__":
    with control_at(Path(sys.argv[1])) as control:
        control.clock.stopped_at = NOW
        tools = Tools(control.app.state.dependencies.settings, control.state, control.connections, control.clock)
        deliver(tools, threading.Event())
