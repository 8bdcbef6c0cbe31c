"""Certificates: their states, when the loop asks again, and what a plan says of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from reconciler.core.certificates import TlsStatus, failing, tls_status, to_certify
from reconciler.core.fleet import Fleet
from reconciler.core.observed import CertificateFailure, ObservedDomain, ObservedEnvironment
from reconciler.core.plan import Verdict, decide
from reconciler.core.variables import EnvironmentVariables
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, configured, provisioned, served

NAME = "shop.example.com"
PATH = "sites/acme/environments/production.yaml"


def _fleet() -> Fleet:
    documents = d.small()
    documents[PATH]["spec"]["domains"] = [{"hostname": NAME}, {"hostname": "www.example.com"}]
    return d.fleet_of(documents)


def _variables(fleet: Fleet) -> EnvironmentVariables:
    return fleet.environment_variables(fleet.environments_by_key["acme/production"].id)


def _failure(code: str = "CERTIFICATE_FAILED", *, minutes_ago: float = 0, count: int = 1) -> CertificateFailure:
    return CertificateFailure(code=code, message="no", at=NOW - timedelta(minutes=minutes_ago), count=count)


def _seen(fleet: Fleet, **domain: Any) -> ObservedEnvironment:
    there = configured(_variables(fleet))
    return there.model_copy(update={"domains": {**there.domains, NAME: ObservedDomain(**domain)}})


def _lines(there: ObservedEnvironment, fleet: Fleet, *, deliberate: bool = False) -> list[str]:
    environment, node = fleet.environments_by_key["acme/production"], fleet.nodes_by_slug["web-1"]
    answer = provisioned(fleet.node_variables(node.id))
    answer = answer.model_copy(update={"environments": {str(environment.id): there}})
    asked = frozenset({environment.id}) if deliberate else frozenset()
    plan = decide(fleet, {"web-1": answer}, ROLES, NOW, deliberate=asked)
    return [f"{s.verdict} {c.field}: {c.observed} ({c.cause}) {c.heals}" for s in plan.steps for c in s.changes]


@pytest.mark.parametrize(
    ("seen", "status"),
    [
        (None, TlsStatus.PENDING),
        (ObservedDomain(), TlsStatus.PENDING),
        (ObservedDomain(failure=_failure()), TlsStatus.FAILED),
        (ObservedDomain(served=served()), TlsStatus.ACTIVE),
        (ObservedDomain(served=served(days=1), failure=_failure()), TlsStatus.ACTIVE),
        (ObservedDomain(served=served(days=-1)), TlsStatus.FAILED),
        (ObservedDomain(served=served(names_match=False)), TlsStatus.FAILED),
    ],
)
def test_status_follows_what_is_served(seen: ObservedDomain | None, status: TlsStatus) -> None:
    assert tls_status(wanted=True, seen=seen, now=NOW) is status
    assert tls_status(wanted=False, seen=seen, now=NOW) is TlsStatus.DISABLED


@pytest.mark.parametrize(
    ("days", "age_days", "warned"),
    [(13.9, 76, True), (14.1, 76, False), (2, 5, True), (5, 2, False), (-1, 90, True)],
    ids=["two weeks", "more than two weeks", "a third of a short life", "short and young", "over"],
)
def test_the_end_is_warned_of(days: float, age_days: float, warned: bool) -> None:
    fleet = _fleet()
    lines = _lines(_seen(fleet, served=served(days=days, age_days=age_days)), fleet)
    assert bool(lines) is warned
    if warned and days > 0:
        end = NOW + timedelta(days=days)
        assert lines == [f"apply certificate {NAME}: ends {end:%Y-%m-%d %H:%M} (the certificate ends soon) True"]


def test_one_that_is_not_what_lies_on_the_disk_is_put_right() -> None:
    fleet = _fleet()
    lines = _lines(_seen(fleet, served=served(is_kept=False)), fleet)
    assert lines == [f"apply certificate {NAME}: another one (changed on the node) True"]


def test_a_refusal_is_told_and_tried_again_ever_later() -> None:
    fleet = _fleet()
    variables = _variables(fleet)
    for code, waits in {"CERTIFICATE_FAILED": (5, 30, 120, 360, 1440, 1440), "DNS_ELSEWHERE": (5, 30, 60, 60)}.items():
        for count, minutes in enumerate(waits, 1):
            early = _seen(fleet, failure=_failure(code, minutes_ago=minutes - 1, count=count))
            late = _seen(fleet, failure=_failure(code, minutes_ago=minutes, count=count))
            assert _lines(early, fleet) == [f"report certificate {NAME}: {code} (no certificate was given) False"]
            assert to_certify(variables, early, NOW) == ()
            assert _lines(late, fleet) == [f"apply certificate {NAME}: {code} (no certificate was given) True"]
            assert to_certify(variables, late, NOW) == (NAME,)


def test_somebody_who_asks_waits_for_nothing() -> None:
    fleet = _fleet()
    there = _seen(fleet, failure=_failure(count=5))
    assert to_certify(_variables(fleet), there, NOW, deliberate=True) == (NAME,)
    assert _lines(there, fleet, deliberate=True)[0].startswith(f"{Verdict.APPLY} ")


def test_a_new_environment_asks_for_all() -> None:
    assert to_certify(_variables(_fleet()), None, NOW) == (NAME, "www.example.com")


def test_only_names_without_a_valid_certificate_fail() -> None:
    fleet = _fleet()
    there = _seen(fleet, failure=_failure())
    assert list(failing(there, [NAME, "www.example.com"], NOW)) == [NAME]
    assert list(failing(_seen(fleet, served=served(days=3), failure=_failure()), [NAME], NOW)) == []
