"""Decides a node's address and wires it: one bridge per state directory, one network namespace and veth per node.

Nodes reach the bridge's address (services of a test) and each other. They have no default route: what tries to leave
fails at once. Every name carries the state directory's identifier, so that two labs on one host never meet.
"""

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.commands import run
from tests.lab.paths import LabError

FIRST_HOST, LAST_HOST = 10, 250


@dataclass(frozen=True)
class Network:
    """The lab's private subnet; `lab_id` is four hexadecimal digits."""

    lab_id: str
    subnet: ipaddress.IPv4Network

    @property
    def bridge(self) -> str:
        return f"tl{self.lab_id}br"

    @property
    def gateway(self) -> str:
        """The host's own address on the bridge: where a test's S3 or ACME server can listen."""
        return str(self.subnet[1])

    def link(self, address: str) -> str:
        """Name of the host's end of a node's veth (the kernel allows 15 characters)."""
        return f"tl{self.lab_id}v{address.rsplit('.', 1)[1]}"

    def free_address(self, taken: Iterable[str]) -> str:
        taken = set(taken)
        for number in range(FIRST_HOST, LAST_HOST):
            if str(self.subnet[number]) not in taken:
                return str(self.subnet[number])
        raise LabError(f"All addresses of {self.subnet} are taken. Run `python -m tests.lab down --all`.")


def read_network(lab_id: str, recorded: Path) -> Network:
    """The network noted in the file `recorded`, chosen and noted first if there is none."""
    if recorded.exists():
        return Network(lab_id, ipaddress.IPv4Network(json.loads(recorded.read_text())["subnet"]))
    network = Network(lab_id, _choose_subnet(lab_id))
    recorded.write_text(json.dumps({"bridge": network.bridge, "subnet": str(network.subnet)}))
    return network


def ensure_bridge(network: Network) -> None:
    if not _link_exists(network.bridge):
        # Without an address of its own a bridge takes its lowest port's, and every node's neighbour entry for it
        # goes stale when that port goes.
        hardware = _hardware_address(network.gateway)
        _ip(
            f"link add {network.bridge} address {hardware} type bridge stp_state 0 forward_delay 0",
            f"addr add {network.gateway}/{network.subnet.prefixlen} dev {network.bridge}",
            f"link set {network.bridge} up",
        )


def remove_network(network: Network, recorded: Path) -> None:
    if _link_exists(network.bridge):
        _ip(f"link del {network.bridge}")
    recorded.unlink(missing_ok=True)


def connect(network: Network, namespace: str, address: str) -> None:
    """Make the namespace and its wire to the bridge; what an interrupted attempt left is replaced."""
    disconnect(network, namespace, address)
    link = network.link(address)
    _ip(
        f"netns add {namespace}",
        f"link add {link} type veth peer name eth0 address {_hardware_address(address)} netns {namespace}",
        f"link set {link} master {network.bridge} up",
    )
    _ip(
        "link set lo up",
        f"addr add {address}/{network.subnet.prefixlen} dev eth0",
        "link set eth0 up",
        namespace=namespace,
    )


def disconnect(network: Network, namespace: str, address: str) -> None:
    if _link_exists(network.link(address)):
        _ip(f"link del {network.link(address)}")
    if namespace_path(namespace).exists():
        _ip(f"netns del {namespace}")


def set_link(network: Network, address: str, *, up: bool) -> None:
    _ip(f"link set {network.link(address)} {'up' if up else 'down'}")


def namespace_path(namespace: str) -> Path:
    return Path("/run/netns") / namespace


def _hardware_address(address: str) -> str:
    """The same for the same address always, or neighbours would go on sending to a restarted node's old one."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def _link_exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def _ip(*lines: str, namespace: str | None = None) -> None:
    inside = ["-n", namespace] if namespace else []
    run(["ip", *inside, "-batch", "-"], text="\n".join(lines) + "\n")


def _choose_subnet(lab_id: str) -> ipaddress.IPv4Network:
    """A /24 that overlaps nothing that this host routes to or has an address in."""
    routed = [ipaddress.IPv4Network(text, strict=False) for text in _routed()]
    third = int(lab_id, 16) % 256
    for second in range(213, 250):
        candidate = ipaddress.IPv4Network(f"10.{second}.{third}.0/24")
        if not any(candidate.overlaps(network) for network in routed):
            return candidate
    raise LabError("Every candidate subnet of the lab overlaps one of this host's routes (see `ip route`).")


def _routed() -> list[str]:
    routes = json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]))
    return [route["dst"] for route in routes if route["dst"] != "default"]
