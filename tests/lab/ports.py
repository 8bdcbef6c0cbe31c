"""Ports for servers that tests start and start again."""

import os
import random
import re
import socket
from contextlib import ExitStack

# Below what the kernel gives to whoever connects: a port stays free while its server is down.
_RANGE = range(12_000, 22_000)
_SHARES = 8
_given: set[int] = set()


def free_port(*neighbours: int) -> int:
    """A port that nobody has on any address; so are those at these distances.

    At random, since other processes choose, too; the workers of one run have a share of the range each, or one would
    be given what the other's server is about to have.
    """
    for _ in range(2):
        for port in random.sample(_ours(), min(1000, len(_ours()))):
            if port not in _given and _are_free(port, *(port + distance for distance in neighbours)):
                _given.add(port)
                return port
        _given.clear()  # a long run has had them all: most of those servers are gone
    raise AssertionError("no free port")


def _ours() -> range:
    """Of this process, where several share a run (pytest-xdist)."""
    worker = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    return _RANGE[int(worker[1]) % _SHARES :: _SHARES] if worker else _RANGE


def _are_free(*ports: int) -> bool:
    try:
        with ExitStack() as stack:
            for port in ports:
                stack.enter_context(socket.socket()).bind(("", port))
    except OSError:
        return False
    return True
