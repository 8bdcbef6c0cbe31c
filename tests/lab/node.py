"""One disposable server, as a test sees it: reach it, break it, restart it.

Where it lives and who may remove it is the Lab's business; how it runs is the Container's.
"""

import secrets
import shlex
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import httpx

from tests.lab.commands import run, wait_until
from tests.lab.container import Container
from tests.lab.network import Network, connect, disconnect, ensure_bridge, namespace_path, set_link
from tests.lab.paths import LabError
from tests.lab.record import Record, write_record

BOOT_SECONDS = 180
HOST_KEY = "ssh_host_ed25519_key"
SETTLED = {"running", "degraded"}


class Node:
    """`state` is systemd's word after the last boot; `failed_units` says why it is "degraded"."""

    ssh_port = 22

    def __init__(
        self,
        record: Record,
        directory: Path,
        network: Network,
        control_groups: Path,
        remove: Callable[["Node"], None],
    ) -> None:
        self.record = record
        self.directory = directory
        self.network = network
        self.namespace = f"tl{network.lab_id}-{record.name}"
        self.state = "unknown"
        self.failed_units: tuple[str, ...] = ()
        self._remove = remove
        self.container = Container(
            machine=self.namespace,
            hostname=self.name,
            directory=self.directory,
            layers=tuple(map(Path, record.layers)),
            network_namespace=namespace_path(self.namespace),
            control_group=control_groups / record.name,
        )

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.address}>"

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def address(self) -> str:
        return self.record.address

    @property
    def host_key(self) -> str:
        """`ssh-ed25519 AAAA…`: what goes after the host's name in known_hosts."""
        kind, key, *_ = (self.directory / f"{HOST_KEY}.pub").read_text().split()
        return f"{kind} {key}"

    @property
    def link(self) -> str:
        """Name of the host's end of the node's wire."""
        return self.network.link(self.address)

    @property
    def running(self) -> bool:
        return self.container.running()

    def as_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "address": self.address,
            "host_key": self.host_key,
            "ssh_port": self.ssh_port,
            "state": self.state,
            "failed_units": list(self.failed_units),
        }

    # Life

    def start(self) -> None:
        """Boot on whatever the upper layer holds and wait until systemd and sshd are ready."""
        if self.running:
            raise LabError(f"Node {self.name} is running already.")
        self.container.kill()  # a control group may be left of an earlier boot
        self.container.mount()
        self._write_identity()
        ensure_bridge(self.network)
        connect(self.network, self.namespace, self.address)
        self.container.start()
        self._wait_ready()

    def stop(self, timeout: float = 180) -> None:
        """Power off in order (databases flush); keeps files. Raises LabError if it takes longer than `timeout`."""
        self.container.poweroff(timeout)
        self._release()

    def kill(self) -> None:
        """Pull the plug; keeps files."""
        self.container.kill()
        self._release()

    def _release(self) -> None:
        self.container.kill()
        disconnect(self.network, self.namespace, self.address)
        self.container.unmount()

    def reboot(self, timeout: float = 180) -> None:
        self.stop(timeout)
        self.start()

    def put_on(self, layers: tuple[str, ...]) -> None:
        """Use other read-only layers from the next start on; the node is down and its upper layer gone or empty."""
        self.record = replace(self.record, layers=layers)
        write_record(self.record, self.directory)
        self.container.layers = tuple(map(Path, layers))

    def down(self) -> None:
        """Remove the node and every trace of it; a second call does nothing."""
        self._remove(self)

    def freeze(self, how: Literal["link", "pause"] = "link") -> None:
        """Make the node unreachable: its wire unplugged, or every process stopped while the kernel still accepts."""
        if how == "link":
            set_link(self.network, self.address, up=False)
        else:
            self.container.pause(paused=True)

    def thaw(self) -> None:
        """Undo either freeze."""
        self.container.pause(paused=False)
        set_link(self.network, self.address, up=True)

    # Reaching it

    def ssh_command(self, *options: str) -> list[str]:
        """The argv that logs in as root with the lab's own key, accepting only this node's host key."""
        settings = {
            "IdentityFile": self.directory.parent.parent / "id_ed25519",
            "UserKnownHostsFile": self.directory / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "20",  # a busy node is slow to greet
            "KexAlgorithms": "^curve25519-sha256",  # the default's first choice costs 0.1 s a connection
        }
        flags = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        return ["ssh", "-F", "none", *flags, *options, f"root@{self.address}"]

    def ssh(
        self,
        command: Sequence[str] | str,
        *,
        input: str | None = None,
        check: bool = True,
        timeout: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        """Run an argv, or a string as a shell script, as root. Raises LabError on failure unless `check` is False."""
        remote = command if isinstance(command, str) else shlex.join(command)
        argv = [*self.ssh_command(), remote]
        done = subprocess.run(argv, input=input or "", capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            output = f"{done.stdout}{done.stderr}".strip()
            raise LabError(f"{self.name}: `{remote}` ended with status {done.returncode}: {output}")
        return done

    def fetch(
        self,
        path: str,
        host: str,
        *,
        scheme: Literal["http", "https"] = "http",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        ca_file: Path | None = None,
        timeout: float = 60,
    ) -> httpx.Response:
        """What the node's web server answers for `host`, without DNS; follows no redirect.

        https names `host` in the handshake, and checks the certificate against it only when given a `ca_file`.
        """
        verify: str | bool = str(ca_file) if ca_file else False
        with httpx.Client(verify=verify, timeout=timeout, trust_env=False) as client:
            return client.request(
                method,
                f"{scheme}://{self.address}{path}",
                headers={**(headers or {}), "Host": host},
                data=data,
                extensions={"sni_hostname": host},
            )

    # Booting

    def _write_identity(self) -> None:
        """What makes this server this server: written at every start, so a snapshot carries nobody's identity."""
        root = self.container.root
        for name in (HOST_KEY, f"{HOST_KEY}.pub"):
            _write(root / "etc/ssh" / name, (self.directory / name).read_text(), 0o600)
        _write(root / "etc/hostname", f"{self.name}\n")
        _write(root / "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n::1 localhost ip6-localhost\n")
        _write(root / "root/.ssh/authorized_keys", "".join(f"{k}\n" for k in self.record.authorized_keys), 0o600)
        if not (root / "etc/machine-id").read_text().strip():
            _write(root / "etc/machine-id", f"{secrets.token_hex(16)}\n", 0o444)

    def _wait_ready(self) -> None:
        if not wait_until(self._settled, BOOT_SECONDS) or not wait_until(self._greets, BOOT_SECONDS):
            console = self.container.console.read_text(errors="replace")[-1500:]
            raise LabError(f"Node {self.name} did not boot (systemd says {self.state!r}). Console:\n{console}")

    def _settled(self) -> bool:
        if not self.running:
            return False
        self.state = self.container.enter(["systemctl", "is-system-running", "--wait"], BOOT_SECONDS).strip()
        if self.state == "degraded":
            listing = self.container.enter(["systemctl", "--failed", "--plain", "--no-legend"], 60)
            self.failed_units = tuple(line.split()[0] for line in listing.splitlines() if line.strip())
        return self.state in SETTLED

    def _greets(self) -> bool:
        """Whether sshd says hello."""
        try:
            with socket.create_connection((self.address, self.ssh_port), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def make_host_key(directory: Path, address: str) -> None:
    """A key pair of the node's own, and the known_hosts file that pins it."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(directory / HOST_KEY)])
    public = (directory / f"{HOST_KEY}.pub").read_text()
    (directory / "known_hosts").write_text(f"{address} {public}")


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)
