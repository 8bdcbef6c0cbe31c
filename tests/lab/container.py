"""Starts and ends one systemd-nspawn container on an overlay, inside a control group of its own.

The control group is what makes ending it exact: everything in it was started by the container, and nothing else was.
Knows nothing of addresses, keys or who wants the container.
"""

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.commands import run, wait_until
from tests.lab.paths import LabError

# Signals that systemd as process 1 understands (systemd(1), "Signals"): no ssh, no D-Bus needed.
POWEROFF = signal.SIGRTMIN + 4


@dataclass
class Container:
    """`machine` is unique on the host; `layers` are read-only, topmost first; `directory` holds all that is ours."""

    machine: str
    hostname: str
    directory: Path
    layers: tuple[Path, ...]
    network_namespace: Path
    control_group: Path
    # Only the process that started nspawn has to reap it.
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def upper(self) -> Path:
        return self.directory / "upper"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    def mounted(self) -> bool:
        return os.path.ismount(self.root)

    def mount(self) -> None:
        if self.mounted():
            return
        work = self.directory / "work"
        # `volatile` makes fsync cheap; its marker in the work directory refuses a second mount, so start afresh.
        run(["rm", "-rf", str(work)])
        for path in (work, self.upper, self.root):
            path.mkdir(exist_ok=True)
        lower = ":".join(map(str, self.layers))
        options = f"lowerdir={lower},upperdir={self.upper},workdir={work},volatile"
        run(["mount", "-t", "overlay", self.machine, "-o", options, str(self.root)])

    def unmount(self) -> None:
        while self.mounted():
            run(["umount", str(self.root)])

    def start(self) -> None:
        """Boot; returns before it is up. The root is mounted and the network namespace exists already."""
        self.control_group.mkdir(parents=True, exist_ok=True)
        # Two containers started from one control group would share it: nspawn puts each into its "payload" child.
        enter = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
        with self.console.open("ab") as console:
            self.process = subprocess.Popen(
                ["sh", "-c", enter, "sh", str(self.control_group), *self._nspawn()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
                },
            )

    def _nspawn(self) -> list[str]:
        return [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            f"--directory={self.root}",
            f"--machine={self.machine}",
            f"--hostname={self.hostname}",
            f"--network-namespace-path={self.network_namespace}",
            "--capability=CAP_NET_ADMIN",
            "--register=no",
            "--keep-unit",
            "--settings=no",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
        ]

    def running(self) -> bool:
        if self.process is not None:
            self.process.poll()
        return "populated 1" in _read(self.control_group / "cgroup.events")

    def pids(self) -> list[int]:
        """Every process of the container, and nspawn itself."""
        # Groups go while this looks, and os.walk() passes over what is gone.
        groups = [Path(group) for group, _, _ in os.walk(self.control_group)]
        return [int(pid) for group in groups for pid in _read(group / "cgroup.procs").split()]

    def init(self) -> int | None:
        """The host's number for the container's process 1, or None before there is one."""
        return next((pid for pid in self.pids() if _is_init(pid)), None)

    def enter(self, argv: list[str], timeout: float) -> str:
        """Output of a command inside, whatever sshd is doing; its status is ignored."""
        init = self.init()
        if init is None:
            return ""
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        return run(["nsenter", "-t", str(init), *namespaces, "--", *argv], check=False, timeout=timeout)

    def poweroff(self, timeout: float) -> None:
        """Stop services in order. Raises LabError rather than pulling the plug."""
        init = self.init()
        if init is not None:
            os.kill(init, POWEROFF)
        if not wait_until(lambda: not self.running(), timeout):
            raise LabError(f"{self.hostname} did not power off within {timeout:.0f} s; see {self.console}.")

    def kill(self) -> None:
        """Pull the plug; afterwards no process and no control group is left."""
        if self.control_group.exists():
            self._kill_init()
            (self.control_group / "cgroup.kill").write_text("1")
            if not wait_until(lambda: not self.running(), 60):
                raise LabError(f"Processes of {self.hostname} survive being killed: {self.pids()}.")
            for group in sorted(self.control_group.rglob("*/"), reverse=True):
                group.rmdir()
            self.control_group.rmdir()
        if self.process is not None:
            self.process.wait(60)
            self.process = None
        propagate = Path("/run/systemd/nspawn/propagate", self.machine)  # a killed nspawn leaves it
        if propagate.exists():
            propagate.rmdir()

    def _kill_init(self) -> None:
        """All inside die with it, and nspawn reaps it and tidies up: killed first, it would leave a zombie."""
        init = self.init()
        if init is not None:
            os.kill(init, signal.SIGKILL)
            self.pause(paused=False)
            wait_until(lambda: not self.running(), 3)

    def pause(self, *, paused: bool) -> None:
        (self.control_group / "cgroup.freeze").write_text("1" if paused else "0")
        wanted = f"frozen {int(paused)}"
        wait_until(lambda: wanted in _read(self.control_group / "cgroup.events"), 5)


def cgroup2_mount() -> Path | None:
    """Where this host mounts the unified hierarchy, if it does."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def _is_init(pid: int) -> bool:
    for line in _read(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return len(numbers) > 1 and numbers[-1] == "1"
    return False


def _read(path: Path) -> str:
    """A file of the kernel's that may vanish at any moment: empty when it has."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError, OSError):
        return ""
