# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Which addresses an archive may be fetched from: public ones, and internal ones that an operator has named.

A name is resolved once, and what was checked is what is connected to: a name that changes its mind changes nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections import namedtuple
from urllib.parse import urlsplit

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.listed_hosts import OWN, kind_of

PORTS = {"http": 80, "https": 443}
LONGEST = 2048
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*\.?")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*\.?")
Place = namedtuple("Place", "scheme host port target addresses")
"""``target``: path and query. ``addresses``: those that may be connected to."""


def place_of(url, allowed=(), resolve=socket.getaddrinfo):
    """Where ``url`` leads, checked; a Failure (``IMPORT_URL_REFUSED``) when it may not be gone to."""
    scheme, host, port, target = _parts(url)
    allowed = {str(one).lower().strip("[]") for one in allowed}
    addresses = [_literal(host)] if _literal(host) else _resolved(host, port, resolve)
    for address in addresses:
        kind = kind_of(address)
        if kind and str(address) not in allowed and (host not in allowed or kind in OWN):
            raise refused(
                f"The host {host} of the archive's address is {address}, a {kind} address. "
                "An operator can allow internal hosts in platform.yaml, spec.imports.allowed_hosts."
            )
    return Place(scheme, host, port, target, [str(one) for one in addresses])


def refused(message):
    return Failure(f"{message} Nothing was fetched.", trueup_code="IMPORT_URL_REFUSED")


def shown(url):
    """An address as a message may show it: what follows the question mark may be a key."""
    return str(url).split("?", 1)[0][:300]


def _parts(url):
    if len(url) > LONGEST or not url.isascii() or any(c <= " " or c in '\\<>"{}|^`\x7f' for c in url):
        raise refused("The archive's address has characters or a length that no address has.")
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise refused(f"The archive's address cannot be read ({error}).") from error
    if scheme not in PORTS:
        raise refused(f"The archive's address begins with {scheme or 'no scheme'}; only http and https are fetched.")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise refused("The archive's address holds a user or password. Give an address without.")
    if not host or port == 0:
        raise refused("The archive's address names no host, or no port that there is.")
    host = host.lower()
    if not _literal(host):
        if _NUMERIC.fullmatch(host):
            raise refused(f"The host {host} is a number in disguise. Write the address as four decimal numbers.")
        if not _NAME.fullmatch(host):
            raise refused(f"The host {host[:260]!r} is no name.")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return scheme, host.rstrip("."), port or PORTS[scheme], target


def _literal(host):
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _resolved(host, port, resolve):
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Failure(
            f"The host {host} of the archive's address does not resolve. Check the name. Nothing was changed.",
            trueup_code="IMPORT_DOWNLOAD_FAILED",
        ) from error
    return [ipaddress.ip_address(text) for text in dict.fromkeys(entry[4][0] for entry in found)]
