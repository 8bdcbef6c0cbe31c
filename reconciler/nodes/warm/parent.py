# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports Ansible once and forks a child for each run that a client hands over.

``python -I -m reconciler.nodes.warm.parent LISTENER MODULES PLAYBOOKS``: the descriptor of a listening socket, where
module archives are kept, and the directory of the playbooks. It ends when its standard input does: the control plane
holds the other end. A run in flight goes on then, as a plain ``ansible-playbook`` would.

It refuses what a fork could not be equal to: another user, another program, other settings, an Ansible that was
replaced on the disk meanwhile. Of ``playbooks/`` it knows nothing: each run reads that anew.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.nodes.warm import child, module_cache

REQUEST_BYTES = 1 << 18
PROGRAM = "ansible-playbook"
OWN = frozenset({"ANSIBLE_LOCAL_TEMP"})
"""Each run has its own; ``child`` puts it in place."""
BEFORE_IMPORT = ("ANSIBLE_", "PYTHON", "LD_")
"""Variables that are read while Ansible is imported, or before."""


@dataclass(frozen=True)
class Run:
    pid: int
    connection: socket.socket


class Parent:
    """A loop over one poll: the control plane's end, clients that come, requests, clients and runs that end."""

    def __init__(self, listener: socket.socket, modules: Path, playbooks: Path) -> None:
        self._listener = listener
        self._listener.setblocking(False)
        self._modules, self._playbooks = modules, playbooks
        self._state = child.ansible_state()
        self._is_outdated = False
        self._clients: dict[int, socket.socket] = {}
        self._runs: dict[int, Run] = {}
        self._poll = select.poll()
        self._poll.register(0, 0)
        self._poll.register(listener, select.POLLIN)

    def serve(self) -> None:
        """Until the control plane ends, or Ansible was replaced."""
        while not self._is_outdated:
            # One a turn: what is done for one may close another's descriptor, and give its number away.
            descriptor, _ = self._poll.poll()[0]
            if descriptor == 0:
                return
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._runs:
                self._reap(descriptor)
            elif descriptor in self._clients:
                self._take(self._clients.pop(descriptor))
            else:
                self._abandon(descriptor)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            self._clients[client.fileno()] = client
            self._poll.register(client, select.POLLIN)

    def _take(self, client: socket.socket) -> None:
        """Fork a run for a request, or refuse it."""
        self._poll.unregister(client)
        try:
            asked = client.recv(REQUEST_BYTES)
            if why := self._refusal(client, request := request_of(asked)):
                client.send(json.dumps({"refused": why}).encode())
                client.close()
            else:
                self._fork(client, request)
        except (OSError, ValueError):
            client.close()

    def _refusal(self, client: socket.socket, request: child.Request) -> str | None:
        if peer_uid(client) != os.geteuid():
            return f"user {peer_uid(client)} is not the control plane's, {os.geteuid()}"
        if Path(request["argv"][0]).name != PROGRAM:
            return f"only {PROGRAM} is run here"
        if self._state != child.ansible_state():
            self._is_outdated = True
            return "Ansible or its configuration was replaced since the parent began"
        if names := different(request["environment"], dict(os.environ)):
            return f"{', '.join(names)} differ from what the parent was started with"
        return None

    def _fork(self, client: socket.socket, request: child.Request) -> None:
        pid = os.fork()
        if pid == 0:
            child.become(request, client, self._modules, self._playbooks)
        run = os.pidfd_open(pid)
        self._runs[run] = Run(pid, client)
        self._poll.register(run, select.POLLIN)
        self._poll.register(client, 0)  # only its end: what it says is for the child

    def _abandon(self, connection: int) -> None:
        """A client has ended: so does its run, unless that has just been reaped."""
        with suppress(KeyError):
            self._poll.unregister(connection)
        for run in self._runs.values():
            if run.connection.fileno() == connection:
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)
                with suppress(ProcessLookupError):  # before it leads a group of its own
                    os.kill(run.pid, signal.SIGKILL)

    def _reap(self, descriptor: int) -> None:
        """Tell of a signal; of an exit, the run has told itself."""
        run = self._runs.pop(descriptor)
        _, status = os.waitpid(run.pid, 0)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        with suppress(KeyError):
            self._poll.unregister(run.connection)
        if os.WIFSIGNALED(status):
            with suppress(OSError):
                run.connection.send(json.dumps({"signal": os.WTERMSIG(status)}).encode())
        run.connection.close()


def peer_uid(connection: socket.socket) -> int:
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


def request_of(asked: bytes) -> child.Request:
    """
    Raises:
        ValueError: it is none.
    """
    found = json.loads(asked)
    kinds = child.Request.__annotations__
    if not isinstance(found, dict) or found.keys() != kinds.keys() or not found["argv"]:
        raise ValueError("no request")
    request: child.Request = found  # type: ignore[assignment]
    return request


def different(asked: dict[str, str], own: dict[str, str]) -> list[str]:
    """The variables in which a run would differ from a fork of this process."""
    names = {name for name in (*asked, *own) if name.startswith(BEFORE_IMPORT)} - OWN
    return sorted(name for name in names if asked.get(name) != own.get(name))


def main(listener: int, modules: Path, playbooks: Path) -> None:
    child.warm()
    modules.mkdir(mode=0o700, exist_ok=True)
    module_cache.prune(modules)
    gc.collect()
    gc.freeze()
    Parent(socket.socket(fileno=listener), modules, playbooks).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
