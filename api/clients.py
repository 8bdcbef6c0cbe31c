"""Who sent a request, and how: behind a proxy that we trust, what it says; otherwise what the socket says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from starlette.datastructures import Headers

Networks = tuple[IPv4Network | IPv6Network, ...]

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True)
class Client:
    """The sender of a request."""

    address: str
    """IP address; empty where the transport has none, such as a Unix socket."""
    secure: bool
    """The request came by TLS."""
    local: bool
    """From the control plane's own host, and not through a proxy."""


def parse_networks(text: str) -> Networks:
    """Comma-separated addresses and networks."""
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def client_of(peer: str, scheme: str, headers: Headers, trusted: Networks) -> Client:
    """Who sent a request with these headers over a connection from ``peer``."""
    secure = scheme == "https"
    local = _is_loopback(peer) and not any(name in headers for name in _FORWARDED)
    if not _within(peer, trusted):
        return Client(peer, secure, local)
    secure = secure or headers.get("x-forwarded-proto", "").strip().lower() == "https"
    return Client(_nearest_untrusted(_hops(headers), trusted) or peer, secure, local)


def is_foreign(origin: str | None, fetch_site: str | None, host: str, secure: bool) -> bool:
    """Whether a browser says that another origin's page sent the request. Programs send neither header."""
    if fetch_site is not None and fetch_site not in {"same-origin", "none"}:
        return True
    if origin is None:
        return False
    source = urlsplit(origin)
    if source.scheme not in {"http", "https"} or (secure and source.scheme != "https"):
        return True
    return source.netloc.lower() != host.lower()


def _hops(headers: Headers) -> list[str]:
    return [hop.strip() for line in headers.getlist("x-forwarded-for") for hop in line.split(",")]


def _nearest_untrusted(hops: Iterable[str], trusted: Networks) -> str | None:
    """The last hop that none of our proxies is; what stands before it, its sender may have made up."""
    for hop in reversed(list(hops)):
        if not _is_address(hop):
            return None
        if not _within(hop, trusted):
            return hop
    return None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _within(address: str, networks: Networks) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in networks)


def _is_loopback(address: str) -> bool:
    return _is_address(address) and ip_address(address).is_loopback
