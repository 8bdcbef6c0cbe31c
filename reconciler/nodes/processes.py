"""Finds and ends the processes that one Ansible run left on this host, by the mark in their environment.

Ansible's workers begin sessions of their own, so neither a process group nor a parent leads to all of them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

JOB_MARK = "TRUEUP_JOB"
RUN_MARK = "TRUEUP_RUN"
"""The run's private directory: what tells one run of a job from another."""


def marked(marks: Mapping[str, str]) -> list[int]:
    """Processes that were started with all of these environment variables.

    The master of a shared ssh connection is none of them: other runs may be using it.
    """
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            environment = (entry / "environ").read_bytes().split(b"\0")
            if wanted.issubset(environment) and b"[mux]" not in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def terminate(pids: list[int]) -> None:
    """Ask them to end."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def sweep(marks: Mapping[str, str], wait_s: float = 5.0) -> int:
    """Kill all marked processes and those that they start meanwhile; how many there were."""
    ended: set[int] = set()
    deadline = time.monotonic() + wait_s
    while (pids := [pid for pid in marked(marks) if not _is_zombie(pid)]) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(pids)
        time.sleep(0.02)
    return len(ended)


def parent_of(pid: int) -> int:
    """0 when the process is gone."""
    return int(_stat(pid)[1]) if _stat(pid) else 0


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] in (["Z"], ["X"], [])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before them may contain anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
