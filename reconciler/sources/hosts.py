"""Which hosts this control plane may be sent to by what somebody typed: public ones, and those an operator named.

A name is resolved once. What it resolved to is checked, and that is connected to: what the name says a moment later
changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from contextlib import suppress

from reconciler.core.errors import SourceRefused, SourceUnavailable

MOST_ADDRESSES = 4
"""Of one name, so many are tried."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_CLOUD = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192")))
"""Where clouds answer questions about the machine itself, at addresses that look like anybody's."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL6 = ipaddress.ip_network("2000::/3")
_OWN = frozenset({"loopback", "link-local", "multicast", "unspecified", "cloud metadata"})
"""What no name leads to, be it an allowed one: such an address must be allowed itself."""


def addresses_of(host: str, port: int, allowed: Collection[str]) -> list[str]:
    """The addresses of ``host``; connect to these and to no others, or a second look-up may say something else.

    Raises:
        SourceRefused: one of them is loopback, private, link-local or otherwise not public, and nobody allowed it.
        SourceUnavailable: the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SourceUnavailable(f"The host {host} does not resolve. Check the name.") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        kind = kind_of(address)
        if kind and address not in allowed and (host.strip("[]").lower() not in allowed or kind in _OWN):
            raise SourceRefused(
                f"The host {host} is {address}, an internal address ({kind}). An operator can allow it in "
                "platform.yaml, spec.imports.allowed_hosts."
            )
    return addresses


def connected(host: str, port: int, allowed: Collection[str], timeout_s: float) -> socket.socket:
    """A connection to the first of the host's addresses that takes one.

    Raises:
        SourceRefused, SourceUnavailable: as in ``addresses_of``.
        OSError: none of them does.
    """
    problem: OSError | None = None
    for address in addresses_of(host, port, allowed)[:MOST_ADDRESSES]:
        try:
            return socket.create_connection((address, port), timeout_s)
        except OSError as error:
            problem = error
    raise problem or OSError("it has no address")


def reachable_address(host: str, port: int, allowed: Collection[str], timeout_s: float) -> str:
    """The one address of the host that a program which connects by itself is given.

    Where there are several, the first that takes a connection; where none does, the first.

    Raises:
        SourceRefused, SourceUnavailable: as in ``addresses_of``.
    """
    addresses = addresses_of(host, port, allowed)[:MOST_ADDRESSES]
    for address in addresses if len(addresses) > 1 else ():
        with suppress(OSError), socket.create_connection((address, port), timeout_s):
            return address
    return addresses[0]


def kind_of(text: str) -> str | None:
    """Why an address is not a public one; None: it is. As ``module_utils/site_import/url.py`` on a node has it."""
    return _kind(ipaddress.ip_address(text))


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
