"""Where a name leads, and what kind of address that is. A name is resolved once, and what was checked is connected to.

Hosts that an operator named in a document (storage, forge, mail and web servers that are sent reports) may be private,
and this host itself by its address or its own name. But no other name leads to what is this host's alone.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

MOST_ADDRESSES = 4
"""Of one name, so many are tried."""
OWN = frozenset({"loopback", "link-local", "multicast", "unspecified", "cloud metadata"})
"""Kinds of addresses that no name leads to, unless somebody named the address itself."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_CLOUD = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192")))
"""Where clouds answer questions about the machine itself, at addresses that look like anybody's."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL6 = ipaddress.ip_network("2000::/3")


class AddressRefused(OSError):
    """The name leads where no name may lead."""


def resolved(host: str, port: int) -> list[str]:
    """All addresses of ``host``, in the order in which they are to be tried.

    Raises:
        OSError, UnicodeError: it has none.
    """
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def first_connected(addresses: Sequence[str], port: int, timeout_s: float | None) -> socket.socket:
    """A connection to the first that takes one.

    Raises:
        OSError: none does.
    """
    problem: OSError | None = None
    for address in addresses[:MOST_ADDRESSES]:
        try:
            connection = socket.create_connection((address, port), timeout_s)
        except OSError as error:
            problem = error
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
    raise problem or OSError("it has no address")


def named_addresses(host: str, port: int) -> list[str]:
    """The addresses of a host that an operator named; connect to these and to no others.

    Raises:
        AddressRefused: one of them is this host's alone, and neither it nor this host was named.
        OSError, UnicodeError: it has none.
    """
    addresses, bare = resolved(host, port), host.strip("[]").lower()
    if _is_address(bare) or bare in {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()}:
        return addresses
    for address in addresses:
        kind = kind_of(address)
        if kind in OWN:
            raise AddressRefused(
                f"{bare} leads to {address}, a {kind} address; name the address itself if that is meant"
            )
    return addresses


def connected(host: str, port: int, timeout_s: float | None) -> socket.socket:
    """A connection to a host that an operator named.

    Raises:
        OSError, UnicodeError: as in ``named_addresses``, or nobody takes it.
    """
    return first_connected(named_addresses(host, port), port, timeout_s)


def kind_of(text: str) -> str | None:
    """Why an address is not a public one; None: it is. As ``module_utils/listed_hosts.py`` on a node has it."""
    return _kind(ipaddress.ip_address(text))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _kind(address: _Address) -> str | None:
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            return "link-local"
        inner = _inner(address)
        if inner is not None:
            return _kind(inner)
    for kind, holds in (
        ("cloud metadata", address in _CLOUD),
        ("loopback", address.is_loopback),
        ("link-local", address.is_link_local),
        ("multicast", address.is_multicast),
        ("unspecified", address.is_unspecified or (address.version == 4 and address.packed[0] == 0)),
        ("private", address.is_private),
        ("reserved", not address.is_global or (address.version == 6 and address not in _GLOBAL6)),
    ):
        if holds:
            return kind
    return None


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address only wraps."""
    if address.ipv4_mapped is not None or address.sixtofour is not None:
        return address.ipv4_mapped or address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    old = int(address) >> 32 == 0 and int(address) > 1
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if old or address in _NAT64 else None
