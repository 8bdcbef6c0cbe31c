"""Keeps the warm parent of one runner, and gives each run the command that has it done there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from reconciler.nodes.warm import client

log = structlog.get_logger()

RESTART_S = 30.0
"""The least time between two starts: a parent that cannot live is no load."""
END_S = 2.0
PADDING, PADDING_BYTES = "TRUEUP_PADDING", 8192
"""Room in the parent's environment, where a run shows its own."""
_PREFIX = "warm-"


@dataclass(frozen=True)
class _Parent:
    process: subprocess.Popen[bytes]
    directory: Path
    """Private; its home, and the socket."""


class WarmAnsible:
    """A process that has Ansible imported, and is replaced when it died, froze or grew old.

    It has the environment of a run and none of this process's, and ends with this process however that ends: it sees
    the end of a pipe. Where it cannot be started, every run is a plain one.
    """

    def __init__(
        self,
        run_directory: Path,
        playbooks: Path,
        environment: Callable[[Path], Mapping[str, str]],
        restart_s: float = RESTART_S,
    ) -> None:
        """``environment``: that of a run whose private directory is the given one, without the marks of a run."""
        self._run_directory, self._playbooks = run_directory, playbooks
        self._environment = environment
        self._restart_s = restart_s
        self._lock = threading.Lock()
        self._parent: _Parent | None = None
        _remove_left(run_directory)
        with self._lock:
            self._start()

    @property
    def pid(self) -> int | None:
        """None: there is no parent now."""
        parent = self._parent
        return parent.process.pid if parent and parent.process.poll() is None else None

    def command(self, plain: Sequence[str], note: Path) -> list[str]:
        """What to start in place of ``plain``; the same where there is no parent. ``note``: see ``noted``."""
        with self._lock:
            if self.pid is None and self._is_old:
                log.warning("warm Ansible has ended and is started again")
                self._start()
            if self._parent is None or self.pid is None:
                return list(plain)
            return [sys.executable, "-I", "-S", client.__file__, str(self._parent.directory), str(note), *plain]

    def noted(self, note: Path) -> str | None:
        """Why a run that has ended was run by the plain program, if it was. A parent that was silent is ended."""
        with suppress(FileNotFoundError):
            why = note.read_text()
            log.warning("Ansible was started anew for a run", reason=why)
            with self._lock:
                if why.startswith(client.SILENT) and self._is_old:
                    self._end(0)
            return why
        return None

    def close(self) -> None:
        with self._lock:
            self._end(END_S)

    @property
    def _is_old(self) -> bool:
        return time.monotonic() - self._started_at >= self._restart_s

    def _start(self) -> None:
        self._end(0)
        self._started_at = time.monotonic()
        try:
            directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=self._run_directory))
            self._parent = _Parent(self._started(directory), directory)
        except OSError as error:  # a full disk, or no descriptor left
            log.warning("warm Ansible cannot be started", error=str(error))

    def _started(self, directory: Path) -> subprocess.Popen[bytes]:
        modules = self._run_directory / "modules"
        with _listener(directory) as listener:
            number = listener.fileno()
            program = [sys.executable, "-I", "-m", "reconciler.nodes.warm.parent"]
            return subprocess.Popen(
                [*program, str(number), str(modules), str(self._playbooks)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**self._environment(directory), PADDING: "-" * PADDING_BYTES},
                cwd=directory,
                pass_fds=[number],
                start_new_session=True,
            )

    def _end(self, patience_s: float) -> None:
        """Close the pipe, and kill who does not see that."""
        parent, self._parent = self._parent, None
        if parent is None:
            return
        if parent.process.stdin:
            parent.process.stdin.close()
        try:
            parent.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            parent.process.kill()
            parent.process.wait()
        shutil.rmtree(parent.directory, ignore_errors=True)


def _listener(directory: Path) -> socket.socket:
    """A socket that nobody else may connect to, and nobody at all before it is so."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        # Through the directory's descriptor: a socket's own path has room for 107 characters.
        listener.bind(f"/proc/self/fd/{descriptor}/socket")
        (directory / "socket").chmod(0o600)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(descriptor)
    return listener


def _remove_left(run_directory: Path) -> None:
    """Directories of control planes that were killed."""
    for found in run_directory.glob(f"{_PREFIX}*"):
        pid = found.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(found, ignore_errors=True)
