"""A node as ssh sees it: how it is reached, and by what it is believed.

That is its pinned host key alone; this host's own ssh files and agent are not looked at.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from reconciler.core.entries import NodeEntry
from reconciler.core.errors import NodeUnreachable

CONNECT_S = 3.0
LOGIN_S = 5.0
KEEPALIVE_S = 15.0


@dataclass(frozen=True)
class Target:
    """A node as ssh sees it."""

    name: str
    address: str
    port: int
    user: str
    host_key: str
    """Type and base64, as the node's document pins it."""
    key_file: Path

    @classmethod
    def of(cls, node: NodeEntry, key_file: Path) -> Target:
        """The node as its document says, reached with the control plane's key."""
        spec = node.manifest.spec
        return cls(node.slug, spec.address, spec.ssh.port, spec.ssh.user, spec.ssh.host_key, key_file)

    def __str__(self) -> str:
        return f"Node {self.name} ({_host_and_port(self.address, self.port)})"


@dataclass(frozen=True)
class HostKey:
    key: str
    """Type and base64: what goes into ``spec.ssh.host_key``."""
    fingerprint: str
    """``SHA256:…``, as ``ssh-keygen -l`` on the node shows it."""


async def connect(target: Target) -> asyncssh.SSHClientConnection:
    """A new connection to the node.

    Raises:
        NodeUnreachable: there is none to be had; the message says what to do about it.
    """
    try:
        key = asyncssh.read_private_key(target.key_file)
    except (OSError, asyncssh.KeyImportError) as error:
        raise NodeUnreachable(
            f"The ssh key {target.key_file} cannot be read: {error}. Run `trueup init`, or restore it."
        ) from error
    try:
        async with asyncio.timeout(CONNECT_S + LOGIN_S):
            return await asyncssh.connect(
                target.address,
                target.port,
                username=target.user,
                client_keys=[key],
                known_hosts=asyncssh.import_known_hosts(f"* {target.host_key}\n"),
                config=None,
                agent_path=None,
                x509_trusted_certs=None,
                connect_timeout=CONNECT_S,
                login_timeout=LOGIN_S,
                keepalive_interval=KEEPALIVE_S,
            )
    except (asyncssh.Error, OSError) as error:
        raise NodeUnreachable(f"{target} {_why(target, error)}") from error


def _why(target: Target, error: Exception) -> str:
    """What became of a connection, and what to do about it."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return (
            f"shows another host key than the one pinned in nodes/{target.name}.yaml. If it was reinstalled, "
            "compare the new key on its console and pin that; otherwise somebody stands in between."
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return f"does not let {target.user} in with the key {target.key_file}. Add its public part there."
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections. Start its ssh service, or correct spec.ssh.port."
    if isinstance(error, TimeoutError):
        return "does not answer. Check that it is up and that its firewall lets this host in."
    return f"cannot be reached: {str(error) or type(error).__name__}. Check its address and network."


def scan_host_key(address: str, port: int = 22) -> HostKey:
    """The key that the host at ``address`` shows; whether it is the right one, a person must say."""
    return asyncio.run(_scan(address, port))


async def _scan(address: str, port: int) -> HostKey:
    where = f"The host at {_host_and_port(address, port)}"
    try:
        async with asyncio.timeout(CONNECT_S + LOGIN_S):
            key = await asyncssh.get_server_host_key(address, port, config=None)
    except ConnectionRefusedError as error:
        raise NodeUnreachable(f"{where} refuses connections. Start its ssh service, or correct the port.") from error
    except TimeoutError as error:
        raise NodeUnreachable(f"{where} does not answer. Check its address and firewall.") from error
    except (asyncssh.Error, OSError) as error:
        raise NodeUnreachable(f"{where} cannot be reached: {error}. Check its address and network.") from error
    if key is None:
        raise NodeUnreachable(f"{where} shows no host key. Look at its ssh service.")
    kind, text = key.export_public_key("openssh").decode().split()[:2]
    return HostKey(f"{kind} {text}", key.get_fingerprint("sha256"))


def _host_and_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
