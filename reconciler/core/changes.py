"""What differs between desired and observed, one small fact at a time, each with its cause."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from reconciler.core import options
from reconciler.core.observed import Applied, ObservedEnvironment, ObservedNode, Service
from reconciler.core.variables import EnvironmentVariables, NodeVariables, reach_of


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
class Held:
    """Whoever has the loop leave a field as it is."""

    field: str
    owner: str
    reason: str
    until: str | None
    """ISO 8601."""

    def __str__(self) -> str:
        until = f" until {self.until}" if self.until else ""
        return f"held by {self.owner}{until}: {self.reason}"


@dataclass(frozen=True, order=True)
class Change:
    """One difference. ``heals``: applying puts it right; otherwise it is only told."""

    field: str
    desired: str
    observed: str
    cause: Cause
    heals: bool = True
    held: Held | None = dataclasses.field(default=None, compare=False)

    @property
    def is_due(self) -> bool:
        """Whether the loop puts it right."""
        return self.heals and self.held is None

    def data(self) -> dict[str, Any]:
        """All of it, as JSON data."""
        return {
            "field": self.field,
            "desired": self.desired,
            "observed": self.observed,
            "cause": self.cause,
            "heals": self.heals,
            "held": self.held and dataclasses.asdict(self.held),
        }


NODE_REDIS = "redis-server.service"
EGRESS = "/etc/trueup/egress.d/"
"""Where the files are by which what goes out of an environment is refused; one of an earlier version has none."""
_FIELDS = {
    "wordpress_version": "spec.wordpress.version",
    "fastcgi_cache": "spec.cache.fastcgi",
    "redis_cache": "spec.cache.redis",
    "vary_cookies": "spec.cache.vary_cookies",
    "internal_hosts": "spec.imports.allowed_hosts",
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
    return (
        *_configuration(desired, role_digest, observed),
        *_options(desired, observed),
        *_egress(desired, observed),
        *_content(observed),
        *_code(observed),
    )


def diff_node(desired: NodeVariables, role_digest: str, observed: ObservedNode) -> tuple[Change, ...]:
    """All that differs in a node's own baseline; its environments are not looked at."""
    return (*_configuration(desired, role_digest, observed), *_out_of_use(observed))


def _out_of_use(observed: ObservedNode) -> Iterator[Change]:
    """The node's own Redis, when each environment has come to have one: the role then stops it."""
    applied = observed.applied
    if applied is None or NODE_REDIS not in applied.services:
        return
    if not any(_uses_node_redis(str(id_), one.applied) for id_, one in observed.environments.items()):
        yield Change(f"service {NODE_REDIS}", "stopped", "active", Cause.UPGRADED)


def _uses_node_redis(id_: str, applied: Applied | None) -> bool:
    """As far as anybody can tell: what was not applied whole may be an earlier version's."""
    if applied is None:
        return True
    return bool(applied.variables.get("redis_cache")) and f"trueup-redis@{id_}.service" not in applied.services


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
    declared, known = desired.settings(), applied.variables
    # Told one by one, beside what they are in WordPress: see ``_options``.
    elsewhere = declared.get("options", {}) != _known(dict, known.get("options"))
    # What is the same whole need not be taken apart.
    same = {name for name, value in declared.items() if value == known.get(name, _NOT_THERE)} | {"options"}
    wanted = dict(_leaves(_without(declared, same)))
    there = dict(_leaves(known_variables(type(desired), _without(known, same))))
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
    if not moved and not elsewhere:
        # What another version of Trueup asked for; its values are not ours to show.
        yield Change("settings", desired.digest()[:12], applied.digest[:12], Cause.DESIRED_MOVED)


_NOT_THERE = object()


def _without(data: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in names}


_Shape = type[BaseModel] | type[dict[str, str]] | None


def known_variables(model: type[BaseModel], applied: Mapping[str, Any]) -> dict[str, Any]:
    """Of what was applied, the values that ``model`` has a field for, and that are of the field's shape."""
    return {name: _known(inner, applied[name]) for name, inner in _fields_of(model).items() if name in applied}


@cache
def _fields_of(model: type[BaseModel]) -> Mapping[str, _Shape]:
    """Each field but ``job``, with the model of its value or of its items; None: plain values; dict: texts by name."""
    return {name: _model_in(field.annotation) for name, field in model.model_fields.items() if name != "job"}


def _model_in(annotation: Any) -> _Shape:
    if get_origin(annotation) is dict:
        return dict
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _known(inner: _Shape, value: Any) -> Any:
    if inner is dict:
        texts = value if isinstance(value, Mapping) else {}
        return {name: text for name, text in texts.items() if isinstance(text, str)}
    if isinstance(value, list):
        return [_known(inner, item) for item in value]
    if isinstance(value, Mapping):
        return known_variables(inner, value) if inner is not None and issubclass(inner, BaseModel) else None
    return value if inner is None else None


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
        if service.active not in _ACTIVE:
            yield Change(f"service {unit}", "active", service.active, Cause.SERVICE_STOPPED)
        if service.enabled not in _ENABLED:
            yield Change(f"service {unit}", "enabled", service.enabled or "unknown", Cause.NODE_TOUCHED)


# `activating` and `reloading` are on their way; the next look tells.
_ACTIVE = frozenset({"active", "activating", "reloading"})
_ENABLED = frozenset({"enabled", "enabled-runtime", "static", "alias", "generated", "indirect"})


def is_running(service: Service | None) -> bool:
    """Whether nothing is told of a unit that was applied."""
    return service is not None and service.active in _ACTIVE and service.enabled in _ENABLED


def _options(desired: EnvironmentVariables, observed: ObservedEnvironment) -> Iterator[Change]:
    """Each declared option once: the document moved, or somebody set it in WordPress."""
    applied = observed.applied
    if applied is None:
        return
    declared = options.of_applied(applied)
    for name in sorted(desired.options.keys() | declared.keys()):
        wanted, before = desired.options.get(name), declared.get(name)
        stored, now = applied.options.get(name), observed.options.get(name)
        if wanted != before:
            # One that is there already is written down all the same: what was declared last is what differs.
            there = before if now in (wanted, None) else now
            yield Change(options.FIELD + name, options.shown(wanted), options.shown(there), Cause.DESIRED_MOVED)
        elif name in observed.options and stored != now:
            yield Change(options.FIELD + name, options.shown(wanted), options.shown(now), Cause.NODE_TOUCHED)


def _egress(desired: EnvironmentVariables, observed: ObservedEnvironment) -> Iterator[Change]:
    """The node's firewall lets packets of the environment's out, or not, against what was applied."""
    applied, there = observed.applied, observed.egress
    if applied is None or there is None or there.reach == desired.reach:
        return
    known = applied.variables
    if reach_of(known.get("type"), known.get("egress")) != desired.reach:
        return  # told as what moved
    ours = any(path.startswith(EGRESS) for path in applied.files)
    cause = Cause.UPGRADED if desired.reach != "open" and not ours else Cause.NODE_TOUCHED
    yield Change("egress", desired.reach, there.reach, cause)


def _content(observed: ObservedEnvironment) -> Iterator[Change]:
    if observed.applied and observed.applied.contents and not observed.database:
        yield Change("database", "present", "missing", Cause.NODE_TOUCHED, heals=False)


def _code(observed: ObservedEnvironment) -> Iterator[Change]:
    applied = observed.applied
    version = applied and applied.wordpress_version
    if version and observed.wordpress_version and observed.wordpress_version != version:
        yield Change("wordpress core", version, observed.wordpress_version, Cause.NODE_TOUCHED, heals=False)
    for difference in observed.differences or ():
        yield Change(
            f"{difference.area} {difference.path}",
            "absent" if difference.kind == "unknown" else "as released",
            difference.kind,
            Cause.NODE_TOUCHED,
            heals=False,
        )


def changed_code(differences: Iterable[Mapping[str, Any]], *, core: bool = False) -> list[str]:
    """Paths of a release, of WordPress itself too with ``core``, that a drift check found changed on the node."""
    areas = ("release ", "core ", "wordpress core") if core else ("release ",)
    return [
        str(one["field"]).partition(" ")[2]
        for one in differences
        if one.get("cause") == Cause.NODE_TOUCHED and str(one.get("field")).startswith(areas)
    ]


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
