"""Wakes whoever waits for work: workers in this process, and the serving process from any other on the host.

A wake is a hint and carries nothing: whoever misses it finds the work at the next poll, two seconds later at most.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path

POLL_S = 2.0


class Dispatcher:
    """``wake`` says that there is work; ``wait`` returns when it was said, or after ``POLL_S``."""

    def __init__(self, wake_socket: Path) -> None:
        self._wake_socket = wake_socket
        self._condition = threading.Condition()
        self._wakes = 0

    def wake(self) -> None:
        """Wake the workers here and the serving process, if there is one."""
        self.wake_here()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            try:
                sender.sendto(b"", str(self._wake_socket))
            except OSError:
                return  # Nobody serves, or its buffer is full of wakes already.

    def is_heard(self) -> bool:
        """Whether a process serves: the socket's file alone says nothing, a killed process leaves it behind."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
            return caller.connect_ex(str(self._wake_socket)) == 0

    def wake_here(self) -> None:
        with self._condition:
            self._wakes += 1
            self._condition.notify_all()

    def seen(self) -> int:
        """What to give ``wait``: taken before looking for work, no wake is missed in between."""
        with self._condition:
            return self._wakes

    def wait(self, seen: int, timeout_s: float = POLL_S) -> None:
        """Return once anything was woken after ``seen``, or the time is over."""
        with self._condition:
            self._condition.wait_for(lambda: self._wakes != seen, timeout_s)
