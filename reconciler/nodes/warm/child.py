# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parent imports, and how a fork of it becomes what a fresh ``ansible-playbook`` would be.

All that Ansible or Python took from the parent's environment while it was imported is put in place anew, and then
compared: a run whose settings come out as other ones than the parent's is refused.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import json
import multiprocessing
import os
import pkgutil
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypedDict

import ansible.cli
from ansible import constants as C  # noqa: N812 - as everywhere in Ansible
from ansible.cli.playbook import PlaybookCLI
from ansible.plugins import loader
from ansible.utils import vars as unique
from ansible.utils.collection_loader import _collection_finder
from ansible.utils.path import cleanup_tmp_file

from reconciler.nodes.warm import module_cache
from reconciler.nodes.warm.client import GO, limit

MODULES = (
    "ansible.executor.process.worker",
    "ansible.executor.task_executor",
    "ansible.modules",
    "ansible.playbook.handler_task_include",
    "ansible.playbook.included_file",
    "ansible.playbook.role_include",
    "ansible.plugins.doc_fragments",
    "ansible.plugins.vars.host_group_vars",
    "multiprocessing.popen_fork",
    "multiprocessing.shared_memory",
    "multiprocessing.synchronize",
    "pty",
)
"""What a play that changes nothing has imported when it ends, beside ``PlaybookCLI`` and the plugins."""
PLUGINS = {"action": ("normal",), "cache": ("memory",), "strategy": ("linear",)}
ALL_PLUGINS = ("become", "callback", "connection", "inventory", "shell")
"""Of these kinds each play loads all that Ansible has. All by their short names: for full ones Ansible wants its
collection finder, which each run sets up. None of ``vars`` (read before its time, it has no options), and not
``awx_display`` (reads the environment where it is imported)."""
ROUTING = "config/ansible_builtin_runtime.yml"
OWN = frozenset({"DEFAULT_LOCAL_TMP"})
"""Constants that differ from run to run, and that nothing remembers."""
MARKS = ("TRUEUP_JOB", "TRUEUP_RUN")
PARENT_HOME = os.environ["HOME"]
STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class Request(TypedDict):
    argv: list[str]
    environment: dict[str, str]
    directory: str
    umask: int
    ignored: list[int]


class Unequal(Exception):
    """This process cannot become what was asked for."""


def warm() -> None:
    """Import what every run imports."""
    for name in MODULES:
        importlib.import_module(name)
    own = {kind: [name for _, name, _ in pkgutil.iter_modules(_package(kind))] for kind in ALL_PLUGINS}
    for kind, names in (PLUGINS | own).items():
        for name in names:
            getattr(loader, f"{kind}_loader").get(name, class_only=True)
    # 2,000 lines that each run would parse. Ansible leaves this function to be replaced by one that remembers.
    remembered = functools.cache(_collection_finder._meta_yml_to_dict)
    remembered(pkgutil.get_data("ansible", ROUTING), ("ansible.builtin", "runtime.yml"))
    _collection_finder._meta_yml_to_dict = remembered
    # Registered for the parent's own directory; the control plane removes that.
    atexit.unregister(cleanup_tmp_file)


def _package(kind: str) -> list[str]:
    """Where Ansible's own plugins of a kind are."""
    return list(importlib.import_module(f"ansible.plugins.{kind}").__path__)


def ansible_state() -> str:
    """What tells whether Ansible, its configuration and this program are on the disk what they were."""
    ours = [Path(__file__).with_name(name) for name in ("child.py", "client.py", "parent.py")]
    theirs = [Path(str(module.__file__)) for module in (ansible.cli, C, loader)]
    # The last: what pip installs, removes or replaces beside Ansible changes it, too.
    found = [path.stat() for path in (*ours, *theirs, Path(sys.executable), theirs[0].parents[2])]
    configuration = Path(C.CONFIG_FILE).read_text() if C.CONFIG_FILE else ""
    return repr([(one.st_ino, one.st_mtime_ns, one.st_size) for one in found]) + configuration


def become(request: Request, client: socket.socket, modules: Path, playbooks: Path) -> NoReturn:
    """Run the request in this fork, once its client hands over its descriptors."""
    try:
        _detach(request, client)
        _settle(request, modules, playbooks)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the client starts the plain program
        client.send(json.dumps({"refused": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    try:
        descriptors = _descriptors(client)
    except OSError:  # the client has gone
        os._exit(1)
    status = _run(descriptors)
    try:
        client.send(json.dumps({"exit": status}).encode())
    finally:
        os._exit(status)


def _descriptors(client: socket.socket) -> list[int]:
    """
    Raises:
        OSError: there will be none.
    """
    itself = os.pidfd_open(os.getpid())
    socket.send_fds(client, [json.dumps({"ready": os.getpid()}).encode()], [itself])
    os.close(itself)
    _, descriptors, _, _ = socket.recv_fds(client, len(GO), len(STREAMS), socket.MSG_CMSG_CLOEXEC)
    if len(descriptors) != len(STREAMS):
        raise OSError("the client left")
    return descriptors


def _detach(request: Request, client: socket.socket) -> None:
    """Have nothing of the parent's, and what makes a process of the client's."""
    os.setsid()
    limit()
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2 and int(entry.name) != client.fileno():
            _close(int(entry.name))
    os.register_at_fork(after_in_child=client.close)  # Ansible's workers have no word with the client
    client.setblocking(True)
    os.chdir(request["directory"])
    os.umask(request["umask"])
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(request["environment"])
    _show(request["environment"])
    Path("/proc/self/comm").write_text("ansible-playboo")


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # the listing's own
        return


def _show(environment: Mapping[str, str]) -> None:
    """Put the environment where ``/proc/PID/environ`` reads it: by its marks a run's processes are found.

    A fork shows what its parent was started with, whatever it sets itself. The parent has room there for this.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    names = [*MARKS, *(environment.keys() - set(MARKS))]
    entries = [os.fsencode(f"{name}={environment[name]}") + b"\0" for name in names if name in environment]
    while sum(map(len, entries)) > end - start:
        entries.pop()
    if len(entries) < len(MARKS & environment.keys()):
        raise Unequal("the marks of the run are longer than the parent's environment")
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, b"".join(entries), sum(map(len, entries)))


def _settle(request: Request, modules: Path, playbooks: Path) -> None:
    """Python's and Ansible's own state, as it is where a program begins."""
    sys.argv = [shutil.which(request["argv"][0]) or request["argv"][0], *request["argv"][1:]]
    time.tzset()
    tempfile.tempdir = None
    multiprocessing.current_process().authkey = secrets.token_bytes(32)
    # `random` reseeds itself in a fork; this is what the ids of plays and tasks begin with.
    unique.random_int, unique.cur_id = f"{secrets.randbelow(2**32):08x}", 0
    ansible.cli.initialize_locale()
    _evaluate_constants()
    _share_modules(Path(request["argv"][-1]), modules, playbooks)


def _attach(descriptors: list[int]) -> None:
    """Take the descriptors for standard input, output and errors, and have Ansible write there."""
    for number, (name, mode) in enumerate(STREAMS):
        os.dup2(descriptors[number], number)
        os.close(descriptors[number])
        buffering = 1 if name == "stderr" else -1
        stream = open(number, mode, buffering, "utf-8", sys.stdin.errors, closefd=False)  # noqa: SIM115
        stream.buffer.raw.name = f"<{name}>"  # type: ignore[attr-defined]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    ansible.cli.check_blocking_io()
    ansible.cli.display.__init__()  # the one that every module has: its streams, their width, what it has said


def _evaluate_constants() -> None:
    """Ansible's settings from this process's environment: the parent's, but for what is below the home directory.

    Many a class has taken its default from them while it was imported; another setting would not reach it.
    """
    C.config.DEPRECATED.clear()
    for name in C.config.get_configuration_definitions():
        before, now = getattr(C, name), C.config.get_config_value(name, variables=vars(C))
        if name not in OWN and now != _at_home(before):
            raise Unequal(f"{name} is {now!r}, and {before!r} in the parent")
        C.set_constant(name, now)
    for _, one in loader.get_all_plugin_loaders():
        one.config = _at_home(one.config)
        one._clear_caches()


def _at_home(value: Any) -> Any:
    """A setting of the parent's with this run's home directory in place of the parent's."""
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return value.replace(PARENT_HOME, os.environ["HOME"]) if isinstance(value, str) else value


def _share_modules(playbook: Path, modules: Path, playbooks: Path) -> None:
    """Have Ansible look for its archives where earlier runs left theirs: of our own playbooks' modules alone."""
    if playbook.parent == playbooks:
        kept = module_cache.directory_for(modules, playbooks, ansible_state())
        Path(C.DEFAULT_LOCAL_TMP, "ansiballz_cache").symlink_to(kept)


def _run(descriptors: list[int]) -> int:
    """The exit status, once all is done that Python does where a program ends."""
    status = 1
    try:
        _attach(descriptors)
        PlaybookCLI.cli_executor(sys.argv)
    except SystemExit as end:
        status = int(end.code or 0) if isinstance(end.code, int | None) else 1
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - as the interpreter does at its top
        traceback.print_exc()
    with suppress(OSError):  # nobody may be reading any more
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    return status & 0xFF
