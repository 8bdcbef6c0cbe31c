"""Holds on single fields: what a node is told instead, and who is told to hold which difference.

A held field keeps the value that was applied last. So a node is given a whole that it can be compared with, in which
nothing of the field moves; an option of WordPress, which may have another value by now, is named to be left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import ValidationError

from reconciler.core.changes import Change, Held, known_variables
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobType
from reconciler.core.observed import Applied, ObservedEnvironment, ObservedNode, Unreachable
from reconciler.core.policy import ENVIRONMENT_FIELDS, Hold, in_force
from reconciler.core.variables import EnvironmentVariables, NodeVariables

ALL = frozenset({"cache", "content", "domains", "files", "options", "php", "redis", "release"})
"""What a person asks for who applies the whole."""

_BY_JOB: Mapping[JobType, frozenset[str]] = {
    JobType.DEPLOY: frozenset({"release"}),
    JobType.UPDATES: frozenset({"release"}),
    JobType.SITE_IMPORT: frozenset({"release", "content"}),
    JobType.RESTORE: frozenset({"release", "content"}),
    JobType.PROMOTE: frozenset({"release", "content"}),
    JobType.SEARCH_REPLACE: frozenset({"content"}),
    JobType.DOMAIN_ADD: frozenset({"domains"}),
    JobType.DOMAIN_REMOVE: frozenset({"domains"}),
    JobType.DRIFT_ADOPT: frozenset({"release", "options"}),
    JobType.DRIFT_DISCARD: frozenset({"release", "options"}),
}
_VARIABLES = {
    "cache.fastcgi": "fastcgi_cache",
    "cache.redis": "redis_cache",
    "cache.vary_cookies": "vary_cookies",
    "redis.memory_percent": "redis_memory_percent",
}

V = TypeVar("V", EnvironmentVariables, NodeVariables)


@dataclass(frozen=True)
class Withheld(Generic[V]):
    """What a node is to be told with the held fields as they were applied."""

    variables: V
    options: tuple[str, ...] = ()
    """Options of WordPress that are left alone."""


def asked_for(job_type: str, intent: Mapping[str, Any]) -> frozenset[str]:
    """The fields that a person's request is about, and of which it therefore lifts the holds."""
    kind = JobType(job_type)
    if kind is JobType.CACHE_UPDATE:
        return frozenset(f"cache.{name}" for name in ("fastcgi", "redis") if intent.get(name) is not None)
    return _BY_JOB.get(kind, ALL)


def holding(holds: Sequence[Hold], now: datetime, lifted: Iterable[str] = ()) -> tuple[Hold, ...]:
    """The holds in force, but for those on what somebody asked for."""
    fields = frozenset(lifted)
    parts = (part for hold in in_force(holds, now) for part in _parts(hold, fields))
    return tuple(part for part in parts if not any(covers(field, part.field) for field in fields))


def _parts(hold: Hold, lifted: frozenset[str]) -> Iterator[Hold]:
    """The hold itself; where less than all of it is lifted, one for each field below it."""
    if not any(field != hold.field and covers(hold.field, field) for field in lifted):
        yield hold
        return
    for field in ENVIRONMENT_FIELDS:
        if field != hold.field and covers(hold.field, field):
            yield hold.model_copy(update={"field": field})


def covers(field: str, other: str) -> bool:
    """Whether ``other`` is the field or below it."""
    return other == field or other.startswith(f"{field}.")


def withheld(desired: V, applied: Applied, holds: Sequence[Hold]) -> Withheld[V] | None:
    """What the node is told under these holds; None: what was applied says nothing that could be kept."""
    data = desired.model_dump()
    before = known_variables(type(desired), applied.variables)
    try:
        for field in _fields(data, before, holds):
            _keep(field, data, before)
        variables = type(desired).model_validate(data)
    except (AttributeError, KeyError, TypeError, ValidationError):
        return None
    options = getattr(variables, "options", {})
    names = (name for name in sorted(options) if any(covers(hold.field, f"options.{name}") for hold in holds))
    return Withheld(variables, tuple(names))


@dataclass(frozen=True)
class Under:
    """What an environment is to be told: all that is declared, or under holds what was applied of it."""

    variables: EnvironmentVariables
    holds: tuple[Hold, ...] = ()
    options: tuple[str, ...] = ()


def under_holds(
    environment: EnvironmentEntry,
    desired: EnvironmentVariables,
    there: ObservedEnvironment | None,
    now: datetime,
    lifted: Iterable[str] = (),
) -> Under:
    """``lifted``: the fields that somebody asked for. What was never applied is made whole."""
    holds = holding(environment.manifest.spec.reconcile.holds, now, lifted)
    less = withheld(desired, there.applied, holds) if holds and there and there.applied else None
    return Under(less.variables, holds, less.options) if less else Under(desired)


def _fields(data: Mapping[str, Any], before: Mapping[str, Any], holds: Sequence[Hold]) -> set[str]:
    fields = {hold.field for hold in holds}
    if fields & {"release", "content"} and _came_together(data, before):
        fields |= {"release", "content"}
    return fields


def _came_together(data: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """New content brings code of its own, and neither can be brought without the other."""
    return all(data[part]["id"] != before[part]["id"] for part in ("release", "content"))


def _keep(field: str, data: dict[str, Any], before: Mapping[str, Any]) -> None:
    top, _, below = field.partition(".")
    match top:
        case "cache" | "redis":
            for name in (name for path, name in _VARIABLES.items() if covers(field, path)):
                data[name] = before.get(name)
        case "php":
            data["php"] = {**data["php"], below: before["php"][below]} if below else before["php"]
        case "options":
            data["options"] = _options(below, data["options"], before.get("options") or {})
        case "release":
            data |= {name: before[name] for name in ("release", "wordpress_version")}
        case "domains":
            _keep_domains(data, before)
        case _:
            data[top] = before[top]


def _options(name: str, declared: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    if not name:
        return dict(before)
    kept = {name: before[name]} if name in before else {}
    return {**{other: value for other, value in declared.items() if other != name}, **kept}


def _keep_domains(data: dict[str, Any], before: Mapping[str, Any]) -> None:
    domains = before.get("domains") or []
    needs_tls = any(domain.get("tls", True) for domain in domains)
    data |= {
        "domains": domains,
        "hostnames": [data["hostnames"][0], *(domain["hostname"] for domain in domains)],
        "tls": (data["tls"] or before.get("tls")) if needs_tls else None,
    }


def told(all_: Sequence[Change], free: Sequence[Change], holds: Sequence[Hold]) -> tuple[Change, ...]:
    """The differences from what is declared, with the hold on each that is left alone.

    ``free``: those that are left when the held fields are as they were applied.
    """
    fields = {change.field for change in free}
    found = [_marked(change, change.field not in fields, holds) for change in all_]
    known = {change.field for change in all_}
    return (*found, *(change for change in free if change.field not in known))


def _marked(change: Change, is_kept: bool, holds: Sequence[Hold]) -> Change:
    path = change.field.removeprefix("spec.")
    path = "release.wordpress" if path == "wordpress.version" else path
    hold = next((one for one in holds if covers(one.field, path)), None)
    if hold is None and is_kept:
        # It came together with what is held.
        hold = next((one for one in holds if one.field in {"release", "content"}), None)
    return replace(change, held=said(hold)) if hold else change


def said(hold: Hold) -> Held:
    until = hold.until.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if hold.until else None
    return Held(hold.field, hold.owner, " ".join(hold.reason.split()).rstrip("."), until)


def kept_names(
    fleet: Fleet, observed: Mapping[str, ObservedNode | Unreachable], now: datetime
) -> Mapping[str, tuple[UUID, str]]:
    """Hostnames that an environment keeps because its domains are held, although its document names them no more."""
    return dict(_kept_names(fleet, observed, now))


def kept_elsewhere(variables: EnvironmentVariables, names: Mapping[str, tuple[UUID, str]]) -> str | None:
    """Why an environment cannot have a declared name yet. ``names``: see ``kept_names``."""
    for domain in variables.domains:
        keeper = names.get(domain.hostname)
        if keeper and str(keeper[0]) != variables.id:
            return f"{domain.hostname} stays with {keeper[1]} as long as the domains of that are held."
    return None


def _kept_names(
    fleet: Fleet, observed: Mapping[str, ObservedNode | Unreachable], now: datetime
) -> Iterator[tuple[str, tuple[UUID, str]]]:
    for environment in fleet.environments.values():
        spec = environment.manifest.spec
        answer = observed.get(spec.node) if spec.reconcile.holds else None
        there = answer.environments.get(str(environment.id)) if isinstance(answer, ObservedNode) else None
        if there is None or there.applied is None:
            continue
        if any(hold.field == "domains" for hold in in_force(spec.reconcile.holds, now)):
            declared = {domain.hostname for domain in spec.domains}
            for hostname in there.applied.hostnames:
                if hostname not in declared:
                    yield hostname, (environment.id, environment.key)
