"""Which hosts this control plane may be sent to by what somebody typed: public ones, and those an operator named.

A name is resolved once. What it resolved to is checked, and that is connected to: what the name says a moment later
changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import suppress

from reconciler.addresses import MOST_ADDRESSES, OWN, first_connected, kind_of, resolved
from reconciler.core.errors import SourceRefused, SourceUnavailable


def addresses_of(host: str, port: int, allowed: Collection[str]) -> list[str]:
    """The addresses of ``host``; connect to these and to no others, or a second look-up may say something else.

    Raises:
        SourceRefused: one of them is loopback, private, link-local or otherwise not public, and nobody allowed it.
        SourceUnavailable: the name does not resolve.
    """
    try:
        addresses = resolved(host, port)
    except (OSError, UnicodeError) as error:
        raise SourceUnavailable(f"The host {host} does not resolve. Check the name.") from error
    is_allowed = host.strip("[]").lower() in allowed
    for address in addresses:
        kind = kind_of(address)
        if kind and address not in allowed and (not is_allowed or kind in OWN):
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
    return first_connected(addresses_of(host, port, allowed), port, timeout_s)


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
