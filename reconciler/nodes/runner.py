"""Runs a playbook, one at a time or several side by side, and says what came of it. The only import of ansible_runner.

Each run has a private directory of its own that is gone afterwards, an environment that holds nothing of ours, and
leaves no process behind: not here, and with a ``Connections`` not on the node either.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ansible_runner.config.runner import RunnerConfig
from ansible_runner.runner import Runner as AnsibleRunner

from reconciler.core.errors import Invalid, NodeUnreachable
from reconciler.inventory import Inventory, unsafe_values
from reconciler.nodes import processes
from reconciler.nodes.connection import Connections
from reconciler.nodes.outcome import HostStats, Outcome, Progress, Record, RunResult, Status, TaskResult
from reconciler.nodes.redaction import redact, tail
from reconciler.nodes.target import Target
from reconciler.nodes.warm import client
from reconciler.nodes.warm.process import WarmAnsible
from reconciler.paths import share

__all__ = ["HostStats", "RunResult", "Runner", "Status", "TaskResult"]

OUTPUT_BYTES = 10_000
MESSAGE_BYTES = 2_000
POLL_S = 0.1
"""How soon a cancel is noticed."""
TERM_GRACE_S = 5.0
STOP_REMOTE_S = 10.0
NOTE = "plain"
"""In a run's directory: why the warm Ansible did not take it."""
_SOCKET_DIRECTORY_LENGTH = 75
"""A Unix socket's path has room for 107 characters; ssh adds its own part and a random ending."""
_FROM_ANSIBLE_RUNNER = frozenset(
    {
        "ANSIBLE_CALLBACK_PLUGINS",
        "ANSIBLE_STDOUT_CALLBACK",
        "ANSIBLE_RETRY_FILES_ENABLED",
        "AWX_ISOLATED_DATA_DIR",
        "RUNNER_OMIT_EVENTS",
        "RUNNER_ONLY_FAILED_EVENTS",
    }
)


class Runner:
    """Runs playbooks of ``share()`` for one control plane. ``run`` may be called from several threads at once."""

    def __init__(self, run_directory: Path, connections: Connections | None = None, *, warm: bool = False) -> None:
        """``warm``: keep Ansible imported in a process that lives until ``close``, and fork it for each run."""
        self._run_directory = run_directory.absolute()
        self._run_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._connections = connections
        self._sockets, self._own_sockets = _socket_directory(self._run_directory)
        self._warm = WarmAnsible(self._run_directory, share() / "playbooks", self._of_a_parent) if warm else None

    @property
    def warm_pid(self) -> int | None:
        """The process that runs are forks of; None: there is none."""
        return self._warm.pid if self._warm else None

    def run(
        self,
        playbook: str | Path,
        inventory: Inventory,
        *,
        job: str,
        timeout_s: float,
        extra_vars: Mapping[str, Any] | None = None,
        targets: Sequence[Target] = (),
        cancel: threading.Event | None = None,
        on_result: Callable[[TaskResult], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        check: bool = False,
        secrets: Sequence[str] = (),
    ) -> RunResult:
        """Run ``playbook``, a name in ``playbooks/`` or a path, on all hosts of ``inventory``.

        Success takes exit 0 *and* every host in the statistics. On cancel and timeout the play is ended, and the
        unit ``trueup-<job>.scope`` on ``targets`` too. Every value goes to Ansible as unsafe: none is a template.
        ``check`` changes nothing, and has diffs in the results, where they may hold secrets.
        """
        started = time.monotonic()
        path = _path_of(playbook)
        if cancel is not None and cancel.is_set():
            return _not_started()
        with tempfile.TemporaryDirectory(prefix=f"{_checked(job)}-", dir=self._run_directory) as name:
            directory = Path(name)
            config = self._configure(directory, path, inventory, job, extra_vars or {}, check=check)
            config.command = self._limited(config.command, directory / NOTE)
            watch = _Watch(directory, cancel, started + timeout_s)
            record = Record(on_result, on_progress)
            try:
                play = AnsibleRunner(config=config, cancel_callback=watch, event_handler=record)
                play.run()
            finally:
                processes.sweep({processes.RUN_MARK: str(directory)})
            output = _printed(Path(config.artifact_dir))
            if self._warm:
                self._warm.noted(directory / NOTE)
        stopped = self._stop_remote(targets, job) if watch.verdict else None
        outcome = Outcome(watch.verdict, play.rc, tuple(inventory.hosts), record, timeout_s)
        return RunResult(
            status=outcome.status,
            error_code=outcome.error_code,
            message=tail(redact(outcome.message(output), secrets), MESSAGE_BYTES),
            hosts=record.hosts,
            results=tuple(record.results),
            output=tail(redact(output, secrets), OUTPUT_BYTES),
            seconds=time.monotonic() - started,
            remote_stopped=stopped,
        )

    def sweep(self, job: str, targets: Sequence[Target] = ()) -> int:
        """End what an earlier run of ``job`` left here and on ``targets``; how many processes that were here.

        For a job whose worker died. Not while this process runs that job.
        """
        ended = 0
        for directory in self._run_directory.glob(f"{_checked(job)}-*"):
            ended += processes.sweep({processes.RUN_MARK: str(directory)})
            shutil.rmtree(directory, ignore_errors=True)
        self._stop_remote(targets, job)
        return ended

    def close(self) -> None:
        """Let the shared ssh connections end as soon as nobody uses them, and end the warm Ansible."""
        if self._warm:
            self._warm.close()
        for socket in self._sockets.iterdir():
            argv = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "stop", "none"]
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=2, check=False)
        if self._own_sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def _configure(
        self,
        directory: Path,
        playbook: Path,
        inventory: Inventory,
        job: str,
        extra_vars: Mapping[str, Any],
        *,
        check: bool,
    ) -> RunnerConfig:
        """What ansible_runner needs, with our environment in place of this process's."""
        hosts, variables = directory / "hosts.json", directory / "extra.json"
        hosts.write_text(json.dumps(inventory.as_file()))
        variables.write_text(json.dumps(unsafe_values(extra_vars)))
        environment = self._environment(directory, job)
        config = RunnerConfig(
            private_data_dir=str(directory),
            playbook=str(playbook),
            inventory=str(hosts),
            extravars=str(variables),
            cmdline="--check --diff" if check else None,
            envvars=environment,
            project_dir=str(playbook.parent),
            quiet=True,
            ident="run",
        )
        config.prepare()
        config.pexpect_timeout = POLL_S  # ansible_runner drops `settings` unless they are in a file
        # ansible_runner starts from a copy of os.environ: whatever is set there stays there.
        config.env = {name: config.env[name] for name in (*environment, *_FROM_ANSIBLE_RUNNER) if name in config.env}
        return config

    def _limited(self, command: Sequence[str], note: Path) -> list[str]:
        """What to start, so that no answer of a node takes this host's memory."""
        warm = self._warm.command(command, note) if self._warm else list(command)
        if warm != list(command):
            return warm
        return ["prlimit", f"--data={client.MOST_MEMORY}", *command]

    def _of_a_parent(self, directory: Path) -> dict[str, str]:
        """The environment of a run in ``directory`` without what would make it a run."""
        nobody = Inventory({}, {})
        config = self._configure(directory, share() / "playbooks" / "none.yml", nobody, "warm", {}, check=False)
        marks = {processes.JOB_MARK, processes.RUN_MARK}
        return {name: value for name, value in config.env.items() if name not in marks}

    def _environment(self, directory: Path, job: str) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "ANSIBLE_CONFIG": str(share() / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets),
            "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible_runner says False where nobody says anything
            "ANSIBLE_CALLBACK_PLUGINS": "",
            "ANSIBLE_NOCOLOR": "True",
            "ANSIBLE_HOST_PATTERN_MISMATCH": "warning",  # told from the statistics, as a failure of its own
            processes.JOB_MARK: job,
            processes.RUN_MARK: str(directory),
        }

    def _stop_remote(self, targets: Sequence[Target], job: str) -> bool | None:
        """Kill the job's unit on each node and wait until it is gone. None: no node was named."""
        if self._connections is None or not targets:
            return None
        gone = [_stop_unit(self._connections, target, f"trueup-{_checked(job)}.scope") for target in targets]
        return all(gone)


class _Watch:
    """Asked by ansible_runner again and again; ends the play in its own way, gently first."""

    def __init__(self, directory: Path, cancel: threading.Event | None, deadline: float) -> None:
        self.verdict: Literal["cancelled", "timed_out"] | None = None
        self._directory = str(directory)
        self._cancel = cancel
        self._deadline = deadline
        self._kill_at = 0.0

    def __call__(self) -> bool:
        """Never true: ansible_runner would kill the process group at once and leave Ansible's workers behind."""
        now = time.monotonic()
        if self.verdict is None:
            self.verdict = self._judge(now)
            self._kill_at = now + TERM_GRACE_S
        if self.verdict and now > self._kill_at:
            processes.sweep({processes.RUN_MARK: self._directory})
        elif self.verdict:  # again and again: the first may come before Ansible has begun
            processes.terminate([pid for pid in self._ours() if processes.parent_of(pid) == os.getpid()])
        return False

    def _judge(self, now: float) -> Literal["cancelled", "timed_out"] | None:
        if self._cancel is not None and self._cancel.is_set():
            return "cancelled"
        return "timed_out" if now > self._deadline else None

    def _ours(self) -> list[int]:
        return processes.marked({processes.RUN_MARK: self._directory})


def _stop_unit(connections: Connections, target: Target, unit: str) -> bool:
    """Whether ``unit`` is gone from the node."""
    # The mark is for a process of the unit's that has not entered it yet: the collection's fence reads it.
    mark = 'd=/run/trueup/stopped; mkdir -p $d && find $d -type f -mmin +1440 -delete && touch -- "$d/$1"; '
    script = mark + 'systemctl kill --signal=KILL -- "$1" 2>/dev/null; '
    script += 'for _ in $(seq 50); do systemctl is-active -q -- "$1" || exit 0; sleep 0.1; done; exit 1'
    with suppress(NodeUnreachable):
        return connections.run(target, ["sh", "-c", script, "sh", unit], timeout_s=STOP_REMOTE_S).exit == 0
    return False


def _not_started() -> RunResult:
    return RunResult("cancelled", None, "The run was cancelled before it began.", {}, (), "", 0.0)


def _printed(artifacts: Path) -> str:
    try:
        with (artifacts / "stdout").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * OUTPUT_BYTES))
            return file.read().decode(errors="replace").replace("\r\n", "\n")
    except FileNotFoundError:
        return ""


def _path_of(playbook: str | Path) -> Path:
    path = Path(playbook)
    return path if path.is_absolute() else share() / "playbooks" / path


def _checked(job: str) -> str:
    """``job`` becomes part of a file's and a unit's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", job):
        raise Invalid(f"{job!r} is no job id: use letters, digits and dashes, 64 at most.")
    return job


def _socket_directory(run_directory: Path) -> tuple[Path, bool]:
    """Where shared ssh connections have their sockets, and whether it is this process's alone."""
    shared = run_directory / "ssh"
    if len(str(shared)) <= _SOCKET_DIRECTORY_LENGTH:
        shared.mkdir(exist_ok=True, mode=0o700)
        return shared, False
    return Path(tempfile.mkdtemp(prefix="trueup-ssh-", dir="/tmp")), True
