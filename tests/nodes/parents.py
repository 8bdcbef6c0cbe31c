"""The warm parents that a test's runner started, and the sleep of a play."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def socket_of(run_directory: Path) -> Path:
    (path,) = run_directory.glob("warm-*/socket")
    return path


@contextmanager
def connected(run_directory: Path) -> Iterator[socket.socket]:
    directory = os.open(socket_of(run_directory).parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(120)
        connection.connect(f"/proc/self/fd/{directory}/socket")  # its own path may be too long
        os.close(directory)
        yield connection


def answering(run_directory: Path) -> None:
    """Wait until the parent has imported Ansible, however slow the machine is now: it ends who talks nonsense."""
    with connected(run_directory) as connection:
        connection.send(b"nonsense")
        assert connection.recv(4096) == b""


def is_plays_sleep(pid: int) -> bool:
    """Whether this is a ``sleep`` of the play's: Ansible ends each of its own shell commands with ``sleep 0``."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return command.startswith(b"sleep\0") and command != b"sleep\x000\0"
