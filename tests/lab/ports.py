"""Ports for servers that tests start and start again."""

import os
import random
import socket
from contextlib import ExitStack

# Below what the kernel gives to whoever connects: a port stays free while its server is down. Each process of a run has
# its own part, or another one would take it meanwhile.
_FIRST, _ALL = 12_000, 10_000
_EACH = _ALL // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_BEGIN = _FIRST + _EACH * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_RANGE = range(_BEGIN, _BEGIN + _EACH)
_given: set[int] = set()


def free_port(*neighbours: int) -> int:
    """A port of loopback that nobody has; so are those at these distances.

    At random, since other runs choose, too.
    """
    for port in random.sample(_RANGE, len(_RANGE)):
        if port not in _given and _are_free(port, *(port + distance for distance in neighbours)):
            _given.add(port)
            return port
    raise AssertionError("no free port")


def _are_free(*ports: int) -> bool:
    try:
        with ExitStack() as stack:
            for port in ports:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
