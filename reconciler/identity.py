"""Who holds something, in words that outlive the process: whether a holder is dead can be told afterwards."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def identity(name: str = "worker") -> str:
    """Who holds a job: host, process id, that process's start in clock ticks, and a name within the process."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_of(os.getpid())}:{name}"


def is_dead(holder: str) -> bool:
    """Whether ``holder`` was a process of this host that is gone. Of other hosts nothing is known: not dead."""
    host, pid, start, _ = (*holder.split(":"), "", "", "")[:4]
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    return str(_start_of(int(pid))) != start


def _start_of(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0
