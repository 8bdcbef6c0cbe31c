"""Certificates of an environment's own domains: what state each is in, and when one is to be asked for (again)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from reconciler.core.changes import Cause, Change
from reconciler.core.jobs import JobErrorCode
from reconciler.core.observed import ObservedDomain, ObservedEnvironment, Served
from reconciler.core.variables import EnvironmentVariables

WARNING = timedelta(days=14)
"""How long before its end a certificate is warned of; of one that lives shorter than six weeks, a third of its life."""

WAITS = tuple(timedelta(minutes=minutes) for minutes in (5, 30, 120, 360, 1440))
"""How long the loop waits after the first, second … failure of a name; the last also after any later one."""

LOOKUP_WAITS = (*WAITS[:2], timedelta(hours=1))
"""The same where DNS was at fault: looking again costs nobody anything."""

LOOKUPS = frozenset({JobErrorCode.DNS_ELSEWHERE, JobErrorCode.DNS_UNAVAILABLE})


_FIELD = "certificate "


class TlsStatus(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    FAILED = "failed"
    DISABLED = "disabled"


def tls_status(*, wanted: bool, seen: ObservedDomain | None, now: datetime) -> TlsStatus:
    """From what is declared and what the node was last seen to serve."""
    if not wanted:
        return TlsStatus.DISABLED
    if seen is None:
        return TlsStatus.PENDING
    if seen.served and is_valid(seen.served, now):
        return TlsStatus.ACTIVE
    return TlsStatus.FAILED if seen.served or seen.failure else TlsStatus.PENDING


def is_valid(served: Served, now: datetime) -> bool:
    """Whether a browser that trusts the issuer would take it."""
    return served.names_match and served.not_before <= now < served.not_after


def ends_soon(served: Served, now: datetime) -> bool:
    return served.not_after - now < min(WARNING, (served.not_after - served.not_before) / 3)


def certified(environment: EnvironmentVariables) -> tuple[str, ...]:
    """The names that are to have a certificate."""
    return tuple(domain.hostname for domain in environment.domains if domain.tls)


def to_certify(
    environment: EnvironmentVariables, seen: ObservedEnvironment | None, now: datetime, *, deliberate: bool = False
) -> tuple[str, ...]:
    """The names for which a certificate is asked now. ``deliberate``: a person asked, so no failure is waited out."""
    domains = seen.domains if seen else {}
    return tuple(
        name
        for name in certified(environment)
        if _is_lacking(domains.get(name), now) and (deliberate or _is_due(domains.get(name), now))
    )


def changes_of(
    environment: EnvironmentVariables, seen: ObservedEnvironment, now: datetime, *, deliberate: bool
) -> Iterator[Change]:
    """What differs between the certificates that are to be served and those that are."""
    due = to_certify(environment, seen, now, deliberate=deliberate)
    for name in certified(environment):
        domain = seen.domains.get(name)
        if _is_lacking(domain, now):
            yield _change(name, domain, now, heals=name in due)


def concerns_certificates_alone(changes: Iterable[Change]) -> bool:
    """Whether applying again would do nothing but ask for certificates again."""
    return all(change.field.startswith(_FIELD) for change in changes if change.is_due)


def failing(seen: ObservedEnvironment | None, names: Sequence[str], now: datetime) -> dict[str, ObservedDomain]:
    """Of these names those that no valid certificate is served for, with why."""
    domains = seen.domains if seen else {}
    found = {name: domains.get(name, ObservedDomain()) for name in names}
    return {name: one for name, one in found.items() if not (one.served and is_valid(one.served, now))}


def _is_lacking(domain: ObservedDomain | None, now: datetime) -> bool:
    served = domain.served if domain else None
    return served is None or not is_valid(served, now) or ends_soon(served, now) or not served.is_kept


def _is_due(domain: ObservedDomain | None, now: datetime) -> bool:
    failure = domain.failure if domain else None
    if failure is None:
        return True
    waits = LOOKUP_WAITS if failure.code in LOOKUPS else WAITS
    return now >= failure.at + waits[min(failure.count, len(waits)) - 1]


def _change(name: str, domain: ObservedDomain | None, now: datetime, *, heals: bool) -> Change:
    field, served = f"{_FIELD}{name}", domain.served if domain else None
    failure = domain.failure if domain else None
    if served and is_valid(served, now) and served.is_kept:
        return Change(field, "renewed", f"ends {served.not_after:%Y-%m-%d %H:%M}", Cause.EXPIRING, heals=heals)
    if failure:
        return Change(field, "served", failure.code, Cause.REFUSED, heals=heals)
    if served is None:
        return Change(field, "served", "missing", Cause.MISSING, heals=heals)
    return Change(field, "served", "another one", Cause.NODE_TOUCHED, heals=heals)
