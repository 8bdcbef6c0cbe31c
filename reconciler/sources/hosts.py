"""Which hosts this control plane may be sent to by what somebody typed: public ones, and those an operator named."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from reconciler.core.errors import SourceRefused, SourceUnavailable


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
    internal = [one for one in addresses if not _is_public(one)]
    if internal and not _is_allowed(host, addresses, allowed):
        raise SourceRefused(
            f"The host {host} is {internal[0]}, an internal address. An operator can allow it in platform.yaml, "
            "spec.imports.allowed_hosts."
        )
    return addresses


def _is_allowed(host: str, addresses: Collection[str], allowed: Collection[str]) -> bool:
    return host.strip("[]").lower() in allowed or all(address in allowed for address in addresses)


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    return parsed.is_global and not parsed.is_multicast and (inner is None or inner.is_global)
