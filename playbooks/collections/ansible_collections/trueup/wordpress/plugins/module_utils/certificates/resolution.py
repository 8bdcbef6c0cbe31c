# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether names lead to a node, asked of DNS on the controller before any certificate is asked for.

An ACME server counts failed attempts and soon refuses more of them, so one that must fail is never made. A name must
have the node's address and no other: a forgotten AAAA record is what such servers ask first.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import dns.exception
import dns.nameserver
import dns.resolver

SECONDS = 6.0
ELSEWHERE, UNAVAILABLE = "DNS_ELSEWHERE", "DNS_UNAVAILABLE"


def refused(names, address, resolvers=()):
    """``{name: {code, message}}`` of those that do not lead to ``address``, and to it alone."""
    resolver = _resolver(resolvers)
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = dict(zip(names, pool.map(lambda name: _refusal(resolver, name, address), names), strict=True))
    return {name: refusal for name, refusal in found.items() if refusal}


def _resolver(addresses):
    resolver = dns.resolver.Resolver(configure=not addresses)
    if addresses:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*_parts(one)) for one in addresses]
    resolver.lifetime = SECONDS
    return resolver


def _parts(text):
    """Address and port of ``192.0.2.53``, ``192.0.2.53:5353``, ``2001:db8::53`` or ``[2001:db8::53]:5353``."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        return address, int(port.lstrip(":") or 53)
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, int(port)
    return text, 53


def _refusal(resolver, name, address):
    try:
        found = _addresses(resolver, name, "A") | _addresses(resolver, name, "AAAA")
    except dns.exception.DNSException as error:
        message = f"DNS gives no answer for {name} ({type(error).__name__}). Look at its name servers, or at yours."
        return {"code": UNAVAILABLE, "message": message}
    if found == {ip_address(address)}:
        return None
    where = f"leads to {', '.join(sorted(map(str, found)))}" if found else "has no address in DNS"
    wanted = f"Point it to {address} and nowhere else, then add it again."
    return {"code": ELSEWHERE, "message": f"{name} {where}. {wanted} No certificate was asked for."}


def _addresses(resolver, name, kind):
    try:
        return {ip_address(record.address) for record in resolver.resolve(f"{name}.", kind)}
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return set()
