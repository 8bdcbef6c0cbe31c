"""Whose code reaches other hosts, and what a plan says where the node's firewall has it otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.changes import EGRESS, diff_environment
from reconciler.core.observed import ObservedEgress, ObservedEnvironment
from reconciler.core.variables import EnvironmentVariables
from tests.core import documents as d
from tests.core.fake_node import ROLES, configured

PRODUCTION = "sites/acme/environments/production.yaml"


def variables(type_: str = "staging", **spec: Any) -> EnvironmentVariables:
    slug = "production" if type_ == "production" else "copy"
    document = {f"sites/acme/environments/{slug}.yaml": d.environment(type=type_, **spec)}
    fleet = d.fleet_of(d.small() | document)
    assert fleet.stalled == ()
    return fleet.environment_variables(fleet.environments_by_key[f"acme/{slug}"].id)


@pytest.mark.parametrize("type_", ["staging", "clone"])
def test_a_copy_is_closed_unless_it_is_opened_and_its_digest_says_only_what_is_said(type_: str) -> None:
    unsaid, closed, opened = (variables(type_, **spec) for spec in ({}, {"egress": "closed"}, {"egress": "open"}))
    assert (unsaid.is_closed, closed.is_closed, opened.is_closed) == (True, True, False)
    assert "egress" not in unsaid.settings()
    assert len({unsaid.digest(), closed.digest(), opened.digest()}) == 3, "closed is without WordPress's own API"
    assert opened.settings()["egress"] == "open"


LIST = ["api.example.com", "files.internal"]


def test_a_copy_with_a_list_is_closed_but_for_it() -> None:
    one = variables(egress=LIST)
    assert (one.is_closed, one.settings()["egress"], one.settings().get("internal_hosts")) == (True, LIST, None)
    assert variables(egress=[]).digest() == variables(egress="closed").digest(), "an empty list lists nobody"
    assert lines(one, seen(one, closed=True)) == []
    assert lines(one, seen(variables(), closed=True)) == [
        "spec.egress: api.example.com, files.internal <- nothing (desired state moved)"
    ]
    assert lines(variables(), seen(one, closed=True)) == [
        "spec.egress: nothing <- api.example.com, files.internal (desired state moved)"
    ]


def test_what_may_be_internal_is_the_platform_s_to_say_and_told_to_whom_it_matters() -> None:
    allowed = ["files.internal", "other.internal", "10.0.0.9", "fd00::9"]
    spec = {"imports": {"allowed_hosts": allowed}}
    platform = {"platform.yaml": {"apiVersion": "trueup/v1", "kind": "Platform", "spec": spec}}

    def internal(**spec: Any) -> tuple[str, ...] | None:
        document = {"sites/acme/environments/copy.yaml": d.environment(type="staging", **spec)}
        fleet = d.fleet_of(d.small() | platform | document)
        return fleet.environment_variables(fleet.environments_by_key["acme/copy"].id).internal_hosts

    assert internal(egress=LIST) == ("files.internal", "10.0.0.9", "fd00::9")
    for egress in (None, "closed", "open", []):
        assert internal(egress=egress) is None


REFUSED = {
    "an address": (["192.0.2.1"], "spec.egress.hosts.0"),
    "a wildcard": (["api.example.com", "*.example.com"], "spec.egress.hosts.1"),
    "no name": (["localhost"], "spec.egress.hosts.0"),
    "an address with a port": (["api.example.com:443"], "spec.egress.hosts.0"),
    "twice": (["api.example.com", "api.example.com"], "api.example.com is named twice in egress"),
    "too many": ([f"api-{number}.example.com" for number in range(33)], "at most 32"),
    "another word": ("opened", "'closed' or 'open'"),
}


@pytest.mark.parametrize(("egress", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_list_of_hosts_is_refused(egress: Any, message: str) -> None:
    document = {"sites/acme/environments/copy.yaml": d.environment(type="staging", egress=egress)}
    (stalled,) = d.fleet_of(d.small() | document).stalled
    assert message in stalled.message


def test_production_is_never_closed() -> None:
    assert not variables("production").is_closed
    assert variables("production", egress="open").digest() == variables("production").digest()
    for egress in ("closed", [], LIST):
        (stalled,) = d.fleet_of(d.small() | {PRODUCTION: d.environment(egress=egress)}).stalled
        assert "never closed" in stalled.message


def seen(
    applied: EnvironmentVariables, *, closed: bool, mail: bool | None = None, ours: bool = True
) -> ObservedEnvironment:
    """As it was applied, with a firewall that closes it or does not; ``ours``: by a version that closes copies.

    ``mail``: whether its mail is refused; that of copies, where nothing is said.
    """
    there = configured(applied)
    assert there.applied is not None
    files = {f"{EGRESS}{applied.id}.nft": "f" * 64} if ours and applied.type != "production" else {}
    manifest = there.applied.model_copy(update={"files": {**there.applied.files, **files}})
    refuses_mail = closed or (applied.type != "production" if mail is None else mail)
    egress = ObservedEgress(closed=closed, refuses_mail=refuses_mail, refused=3 if refuses_mail else None)
    return there.model_copy(update={"applied": manifest, "files": manifest.files, "egress": egress})


def lines(desired: EnvironmentVariables, there: ObservedEnvironment) -> list[str]:
    changes = diff_environment(desired, ROLES.environment, there)
    return [f"{one.field}: {one.desired} <- {one.observed} ({one.cause})" for one in changes if one.is_due]


def test_what_is_as_it_should_be_is_not_told() -> None:
    for one, closed in ((variables(), True), (variables(egress="open"), False), (variables("production"), False)):
        assert lines(one, seen(one, closed=closed)) == []
        there = seen(one, closed=closed).model_copy(update={"egress": None})
        assert lines(one, there) == [], "an earlier probe says nothing"


def test_a_copy_that_somebody_opened_on_the_node_is_closed_again() -> None:
    assert lines(variables(), seen(variables(), closed=False, mail=False)) == [
        "egress: closed <- open (changed on the node)"
    ]
    assert lines(variables(), seen(variables(), closed=False)) == [
        "egress: closed <- open but for mail (changed on the node)"
    ]


def test_mail_of_a_copy_that_was_opened_is_refused() -> None:
    one = variables(egress="open")
    assert lines(one, seen(one, closed=False, mail=False)) == [
        "egress: open but for mail <- open (changed on the node)"
    ]
    earlier = seen(one, closed=False, mail=False, ours=False)
    assert lines(one, earlier) == ["egress: open but for mail <- open (Trueup was upgraded)"]
    assert lines(variables("production"), seen(variables("production"), closed=False, mail=True)) == [
        "egress: open <- open but for mail (changed on the node)"
    ]


def test_a_copy_of_an_earlier_version_is_closed_by_the_upgrade() -> None:
    there = seen(variables(), closed=False, mail=False, ours=False)
    assert lines(variables(), there) == ["egress: closed <- open (Trueup was upgraded)"]


def test_a_production_that_is_closed_is_opened() -> None:
    one = variables("production")
    assert lines(one, seen(one, closed=True)) == ["egress: open <- closed (changed on the node)"]


def test_what_a_document_moves_is_told_once() -> None:
    assert lines(variables(egress="open"), seen(variables(), closed=True)) == [
        "spec.egress: open <- nothing (desired state moved)"
    ]
    assert lines(variables(), seen(variables(egress="open"), closed=False)) == [
        "spec.egress: nothing <- open (desired state moved)"
    ]
