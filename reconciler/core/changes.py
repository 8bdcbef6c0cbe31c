"""What differs between desired and observed, one small fact at a time, each with its cause."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from reconciler.core.observed import Applied, ObservedEnvironment, ObservedNode, Service
from reconciler.core.variables import EnvironmentVariables, NodeVariables


class Cause(StrEnum):
    """Why desired and observed differ, as far as one look at the node can tell."""

    MISSING = "not there yet"
    DESIRED_MOVED = "desired state moved"
    NODE_TOUCHED = "changed on the node"
    SERVICE_STOPPED = "service not running"
    UNFINISHED = "an apply has not finished"
    UPGRADED = "Trueup was upgraded"
    REFUSED = "no certificate was given"
    EXPIRING = "the certificate ends soon"


@dataclass(frozen=True, order=True)
class Change:
    """One difference. ``heals``: applying puts it right; otherwise it is only told."""

    field: str
    desired: str
    observed: str
    cause: Cause
    heals: bool = True


_FIELDS = {
    "wordpress_version": "spec.wordpress.version",
    "fastcgi_cache": "spec.cache.fastcgi",
    "redis_cache": "spec.cache.redis",
    "url": "url",
    "redis_memory_percent": "spec.redis.memory_percent",
    "address": "spec.address",
    "ssh_port": "spec.ssh.port",
}


def diff_environment(
    desired: EnvironmentVariables, role_digest: str, observed: ObservedEnvironment | None
) -> tuple[Change, ...]:
    """All that differs for one environment. ``observed`` None: the node answered and it isn't there."""
    if observed is None:
        return (Change("environment", "present", "missing", Cause.MISSING),)
    return (*_configuration(desired, role_digest, observed), *_content(observed), *_code(observed))


def diff_node(desired: NodeVariables, role_digest: str, observed: ObservedNode) -> tuple[Change, ...]:
    """All that differs in a node's own baseline; its environments are not looked at."""
    return tuple(_configuration(desired, role_digest, observed))


def _configuration(
    desired: EnvironmentVariables | NodeVariables, role_digest: str, observed: ObservedEnvironment | ObservedNode
) -> Iterator[Change]:
    applied = observed.applied
    if observed.pending:
        yield Change("apply", "complete", "unfinished", Cause.UNFINISHED)
    if applied is None:
        if not observed.pending:
            yield Change("configuration", "present", "missing", Cause.MISSING)
        return
    yield from _moved(desired, applied)
    if applied.role_digest != role_digest:
        yield Change("role", role_digest[:12], applied.role_digest[:12], Cause.UPGRADED)
    yield from _touched("file", applied.files, observed.files, short=True)
    yield from _touched("link", applied.links, observed.links, short=False)
    yield from _stopped(applied.services, observed.services)


def _moved(desired: EnvironmentVariables | NodeVariables, applied: Applied) -> Iterator[Change]:
    if desired.digest() == applied.digest:
        return
    wanted = dict(_leaves(desired.model_dump(mode="json", exclude={"job"})))
    there = dict(_leaves(applied.variables))
    moved = {field for field in wanted.keys() | there.keys() if wanted.get(field) != there.get(field)}
    # What follows from the domains need not be told beside them.
    follows = {field for field in moved if "domains" in moved and field.startswith(("hostnames", "tls"))}
    for field in sorted(moved - follows):
        yield Change(
            _FIELDS.get(field, f"spec.{field}"),
            _word(wanted.get(field)),
            _word(there.get(field)),
            Cause.DESIRED_MOVED,
        )


def _touched(
    noun: str, applied: Mapping[str, str], observed: Mapping[str, str | None], *, short: bool
) -> Iterator[Change]:
    for path, value in sorted(applied.items()):
        now = observed.get(path)
        if now != value:
            size = 12 if short else None
            yield Change(f"{noun} {path}", value[:size], now[:size] if now else "missing", Cause.NODE_TOUCHED)


def _stopped(units: Iterable[str], observed: Mapping[str, Service]) -> Iterator[Change]:
    for unit in sorted(units):
        service = observed.get(unit, Service(active="missing", enabled="missing"))
        # `activating` and `reloading` are on their way; the next look tells.
        if service.active not in {"active", "activating", "reloading"}:
            yield Change(f"service {unit}", "active", service.active, Cause.SERVICE_STOPPED)
        if service.enabled not in {"enabled", "enabled-runtime", "static", "alias", "generated", "indirect"}:
            yield Change(f"service {unit}", "enabled", service.enabled or "unknown", Cause.NODE_TOUCHED)


def _content(observed: ObservedEnvironment) -> Iterator[Change]:
    if observed.applied and observed.applied.contents and not observed.database:
        yield Change("database", "present", "missing", Cause.NODE_TOUCHED, heals=False)


def _code(observed: ObservedEnvironment) -> Iterator[Change]:
    applied = observed.applied
    version = applied and applied.variables.get("wordpress_version")
    if version and observed.wordpress_version and observed.wordpress_version != version:
        yield Change("wordpress core", str(version), observed.wordpress_version, Cause.NODE_TOUCHED, heals=False)
    for difference in observed.differences or ():
        yield Change(
            f"{difference.area} {difference.path}",
            "absent" if difference.kind == "unknown" else "as released",
            difference.kind,
            Cause.NODE_TOUCHED,
            heals=False,
        )


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _word(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case {"hostname": str(name), **more}:
            return name if more.get("tls", True) else f"{name} (without TLS)"
        case str() if value.startswith("-----BEGIN"):
            return hashlib.sha256(value.encode()).hexdigest()[:12]
        case list() | tuple():
            return ", ".join(_word(item) for item in value) or "nothing"
    return str(value)
