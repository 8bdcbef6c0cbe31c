# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Lets one run at a time change something on this node, and of two jobs the one with the higher fence.

A job whose lease ran out does not know that it is late: its process may still be at work here when the next attempt
arrives. So every run works inside a systemd scope that can be ended by name, holds a lock for as long as any of its
processes lives, and leaves its fence on disk. An operator's run by hand has no fence: it ends no job, no job ends it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import time

LOCKS = "/run/trueup/locks"
FENCES = "/var/lib/trueup/fences"
STOPPED = "/run/trueup/stopped"
"""A file for each scope that was ordered to end, as old as the order."""
HOLD = "/etc/trueup/hold"
EVICTION_SECONDS = 10
SCOPE_SECONDS = 2


class Refused(Exception):
    """This run must not touch its target; ``facts`` say why: ``busy``, ``stale`` or ``held``."""

    def __init__(self, message, **facts):
        super().__init__(message)
        self.facts = facts


class Fence:
    """A context: inside of it, this process is the only one at work on ``target``.

    ``job`` is None by hand, else has ``id`` and ``fence``. ``handle`` is the lock: hand it to child processes.
    """

    def __init__(self, target, job):
        self.target = target
        self.id = str(job["id"]) if job else None
        self.fence = int(job["fence"]) if job else None
        self.unit = None
        self.notes = []
        self.handle = -1

    def __enter__(self):
        self._refuse_if_held()
        os.makedirs(LOCKS, mode=0o700, exist_ok=True)
        os.makedirs(FENCES, mode=0o700, exist_ok=True)
        self.handle = os.open(os.path.join(LOCKS, self.target), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock()
        # Before the scope exists: a name that ends nobody is harmless here, the one before us would not be.
        self._write_holder(self._scope_name())
        self._refuse_if_stale()
        self._enter_scope()
        self._refuse_if_stopped()
        self._write_holder(self.unit)
        return self

    def __exit__(self, *_):
        os.ftruncate(self.handle, 0)
        os.close(self.handle)

    def _refuse_if_held(self):
        try:
            with open(HOLD, encoding="utf-8", errors="replace") as file:
                reason = file.read().strip()
        except FileNotFoundError:
            return
        if self.fence is not None:
            raise Refused(
                f"An operator holds this node: {reason}. Remove {HOLD} to let jobs change it again.", held=True
            )

    # The lock

    def _lock(self):
        deadline = time.monotonic() + EVICTION_SECONDS
        while not self._try_lock():
            holder = self._holder()
            if not self._outranks(holder):
                raise Refused(f"{self._name(holder)} is at work on {self.target}. Wait for it to end.", busy=True)
            if time.monotonic() > deadline:
                raise Refused(
                    f"{self._name(holder)} is late, but did not end within {EVICTION_SECONDS} seconds. "
                    f"Look at `systemctl status {holder['unit']}` on the node.",
                    busy=True,
                )
            end(holder["unit"])
            time.sleep(0.05)

    def _try_lock(self):
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self):
        """Who wrote into the lock last; it may have only just been taken over from them."""
        try:
            found = json.loads(os.pread(self.handle, 4096, 0))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _outranks(self, holder):
        theirs = holder.get("fence")
        return None not in (self.fence, theirs, holder.get("unit")) and theirs < self.fence

    def _name(self, holder):
        return holder.get("unit") or "Another run"

    def _write_holder(self, unit):
        data = json.dumps({"unit": unit, "fence": self.fence, "pid": os.getpid()}).encode()
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, data, 0)

    # The fence

    def _refuse_if_stale(self):
        if self.fence is None:
            return
        path = os.path.join(FENCES, self.target)
        seen = read_fence(path)
        if self.fence < seen:
            raise Refused(
                f"Job {self.id} has fence {self.fence}, but fence {seen} was at work on {self.target}: it is late.",
                stale=True,
            )
        if self.fence > seen:
            _write_durably(path, f"{self.fence}\n")

    # The scope

    def _scope_name(self):
        unit = f"trueup-{self.id or f'manual-{os.getpid()}'}.scope"
        if not re.fullmatch(r"trueup-[A-Za-z0-9_.-]+\.scope", unit):
            raise Refused(f"A job's id becomes a unit's name, and {self.id!r} cannot be one.")
        return unit

    def _enter_scope(self):
        """Move this process into a unit of its own, which systemd can end with all its children."""
        unit = self._scope_name()
        deadline = time.monotonic() + SCOPE_SECONDS
        error = start_scope(unit)
        # The job's step before this one had a scope of the same name, which systemd may not have collected yet.
        while error and "already" in error and time.monotonic() < deadline:
            time.sleep(0.02)
            error = start_scope(unit)
        if error or not _inside(unit, deadline):
            self.notes.append(f"This run has no scope of its own and cannot be ended by name: {error or 'not moved'}")
        else:
            self.unit = unit

    def _refuse_if_stopped(self):
        """The order to end the scope may have come when this process was on its way and not in it yet."""
        try:
            ordered = os.stat(os.path.join(STOPPED, self._scope_name())).st_mtime
        except FileNotFoundError:
            return
        if time.time() - ordered < _age():
            raise Refused(f"Job {self.id} was stopped before it began to work on {self.target}.", stale=True)


def _age():
    """How long ago this process began, in seconds."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def start_scope(unit):
    """What systemd says against a scope named ``unit`` around this process; empty when it agrees."""
    argv = ["busctl", "--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]
    argv += ["org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", "3"]
    argv += ["PIDs", "au", "1", str(os.getpid()), "CollectMode", "s", "inactive-or-failed"]
    argv += ["Description", "s", "Trueup at work", "0"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip() or "busctl failed"


def end(unit):
    """Kill everything in a unit of ours."""
    if unit.startswith("trueup-") and unit.endswith(".scope"):
        argv = ["systemctl", "kill", "--signal=KILL", unit]
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)


def read_fence(path):
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


def _inside(unit, deadline):
    while time.monotonic() < deadline:
        with open("/proc/self/cgroup", encoding="ascii") as file:
            if unit in file.read():
                return True
        time.sleep(0.002)
    return False


def _write_durably(path, text):
    draft = f"{path}.new"
    with open(draft, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
