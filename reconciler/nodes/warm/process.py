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
from pathlib import Path

import structlog

from reconciler.nodes.warm import client

log = structlog.get_logger()

RESTART_S = 30.0
"""The least time between two starts: a parent that cannot live is no load."""
END_S = 2.0
PADDING_BYTES = 8192
"""Room in the parent's environment, where a run shows its own."""
PADDING = "TRUEUP_PADDING"


class WarmAnsible:
    """A process that has Ansible imported, and is replaced when it died, froze or grew old.

    It has the environment of a run and none of this process's, and ends with this process however that ends: it sees
    the end of a pipe. Its directory is below ``run_directory``.
    """

    def __init__(
        self,
        run_directory: Path,
        playbooks: Path,
        environment: Callable[[Path], Mapping[str, str]],
        restart_s: float = RESTART_S,
    ) -> None:
        """``environment``: that of a run whose private directory is the given one."""
        self._modules = run_directory / "modules"
        self._playbooks = playbooks
        self._restart_s = restart_s
        _remove_left(run_directory)
        self._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=run_directory))
        self._environment = environment(self._directory)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        with self._lock:
            self._start()

    @property
    def pid(self) -> int | None:
        """None: there is no parent now."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def command(self, plain: Sequence[str], note: Path) -> list[str]:
        """What to start in place of ``plain``; the same where there is no parent. ``note``: see ``noted``."""
        with self._lock:
            if self.pid is None and time.monotonic() - self._started_at >= self._restart_s:
                log.warning("warm Ansible had ended and is started again")
                self._start()
            if self.pid is None:
                return list(plain)
        return [sys.executable, "-I", "-S", client.__file__, str(self._directory), str(note), *plain]

    def noted(self, note: Path) -> str | None:
        """Why a run that has ended was run by the plain program, if it was; a parent that was silent is ended."""
        with suppress(FileNotFoundError):
            why = note.read_text()
            log.warning("Ansible was started anew for a run", reason=why)
            with self._lock:
                if why.startswith(client.SILENT) and time.monotonic() - self._started_at >= self._restart_s:
                    self._end(0)
            return why
        return None

    def close(self) -> None:
        with self._lock:
            self._end(END_S)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> None:
        self._end(0)
        self._started_at = time.monotonic()
        with _listener(self._directory) as listener:
            number = listener.fileno()
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-m", "reconciler.nodes.warm.parent"),
                    *(str(number), str(self._modules), str(self._playbooks)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**self._environment, PADDING: "-" * PADDING_BYTES},
                cwd=self._directory,
                pass_fds=[number],
                start_new_session=True,
            )

    def _end(self, patience_s: float) -> None:
        """Close the pipe, and kill who does not see that."""
        if self._process is None:
            return
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


_PREFIX = "warm-"


def _listener(directory: Path) -> socket.socket:
    """A socket that nobody else may connect to, and nobody at all before it is so."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = directory / "socket"
    path.unlink(missing_ok=True)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        # Through the directory's descriptor: a socket's own path has room for 107 characters.
        listener.bind(f"/proc/self/fd/{descriptor}/socket")
    finally:
        os.close(descriptor)
    path.chmod(0o600)
    listener.listen(128)
    return listener


def _remove_left(run_directory: Path) -> None:
    """Directories of control planes that were killed."""
    for found in run_directory.glob(f"{_PREFIX}*"):
        pid = found.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(found, ignore_errors=True)
