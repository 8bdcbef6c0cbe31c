"""Which nodes are given the wildcard, and which have it taken away."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives import serialization

from reconciler.certificates.giving import TAKEN_BACK, drift, is_to_be_given, to_be_taken_from
from reconciler.certificates.kept import Delivery, Notes, Wildcard
from reconciler.core.entries import NodeEntry
from reconciler.core.fleet import Fleet
from reconciler.core.manifests import Node, Platform
from reconciler.core.observed import ObservedNode, ObservedPreview, Unreachable
from reconciler.records.observations import Observation
from tests.lab.acme import certificate, key_pem

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
NODE = uuid4()
HOST_KEY = "ssh-ed25519 AAAA"
FILES = {"nginx.conf": "1", "privkey.pem": "2"}


@pytest.fixture(scope="module")
def wildcard() -> Wildcard:
    key, leaf = certificate("*.preview.example.com", days=60)
    chain = leaf.public_bytes(serialization.Encoding.PEM).decode()
    return Wildcard("preview.example.com", "https://acme.example.com/dir", chain, key_pem(key).decode())


@pytest.fixture(scope="module")
def given(wildcard: Wildcard) -> Delivery:
    return Delivery(wildcard.fingerprint, HOST_KEY, NOW - timedelta(hours=1))


def _node(**spec: Any) -> NodeEntry:
    data = {"address": "192.0.2.1", "ssh": {"host_key": HOST_KEY}, **spec}
    manifest = Node.model_validate({"apiVersion": "trueup/v1", "kind": "Node", "spec": data})
    return NodeEntry("nodes/web-1.yaml", NODE, "web-1", manifest)


def _seen(
    given: Delivery, *, minutes: int = 5, hold: str | None = None, fingerprint: str | None = None, **found: str | None
) -> Observation:
    """A look at the node so many minutes after it was given the wildcard. ``found``: what differs from ``FILES``."""
    preview = ObservedPreview(
        domain="preview.example.com",
        fingerprint=fingerprint or given.fingerprint,
        files=FILES,
        found={**FILES, **{name.replace("_", "."): value for name, value in found.items()}},
    )
    observed = ObservedNode(observed_at=NOW - timedelta(days=9), hostname="web-1", hold=hold, preview=preview)
    return Observation(NODE, given.at + timedelta(minutes=minutes), observed, None)


def _without(observation: Observation) -> Observation:
    assert observation.observed
    return replace(observation, observed=observation.observed.model_copy(update={"preview": None}))


def _fleet(*nodes: NodeEntry) -> Fleet:
    platform = Platform(apiVersion="trueup/v1", kind="Platform")
    return Fleet("r", platform, {node.id: node for node in nodes}, {}, {}, ())


def test_what_lies_there_as_it_was_given_is_no_drift(given: Delivery) -> None:
    assert drift(given, _seen(given)) is None


def test_lost_changed_and_foreign_files_are_drift(given: Delivery) -> None:
    assert drift(given, _seen(given, privkey_pem=None)) == "changed on the node: privkey.pem"
    both = _seen(given, nginx_conf="3", privkey_pem=None)
    assert drift(given, both) == "changed on the node: nginx.conf, privkey.pem"
    assert drift(given, _seen(given, fingerprint="other")) == "another one is there"
    assert drift(given, _without(_seen(given))) == "it is not there any more"


def test_a_look_from_before_the_delivery_and_a_silent_node_say_nothing(given: Delivery) -> None:
    assert drift(given, _without(_seen(given, minutes=0))) is None
    silent = Unreachable(since=NOW, reason="no answer")
    assert drift(given, replace(_without(_seen(given)), unreachable=silent)) is None
    assert drift(given, None) is None


def test_drift_is_healed_where_the_mode_and_its_windows_allow_it(wildcard: Wildcard, given: Delivery) -> None:
    notes = Notes().given(str(NODE), given)
    lost = _seen(given, privkey_pem=None)
    never = [{"kind": "deny", "cron": "* * * * *", "minutes": 1}]
    assert not is_to_be_given(_node(), wildcard, notes, _seen(given), NOW)
    assert is_to_be_given(_node(), wildcard, notes, lost, NOW)
    assert not is_to_be_given(_node(reconcile={"mode": "report"}), wildcard, notes, lost, NOW)
    assert not is_to_be_given(_node(reconcile={"windows": never}), wildcard, notes, lost, NOW)


def test_a_renewal_comes_in_every_mode_but_paused_and_never_to_a_node_on_hold(
    wildcard: Wildcard, given: Delivery
) -> None:
    former = Notes().given(str(NODE), replace(given, fingerprint="former"))
    seen = _seen(given, fingerprint="former")
    for mode, expected in (("enforce", True), ("report", True), ("paused", False)):
        assert is_to_be_given(_node(reconcile={"mode": mode}), wildcard, former, seen, NOW) is expected, mode
    assert not is_to_be_given(_node(), wildcard, former, _seen(given, hold="disks"), NOW)
    assert not is_to_be_given(_node(), wildcard, former, None, NOW), "nobody has looked at it yet"


def test_a_failure_is_waited_out(wildcard: Wildcard, given: Delivery) -> None:
    notes = Notes().not_given(str(NODE), "nginx refuses it", wildcard.fingerprint, NOW)
    assert not is_to_be_given(_node(), wildcard, notes, _seen(given), NOW + timedelta(minutes=4))
    assert is_to_be_given(_node(), wildcard, notes, _seen(given), NOW + timedelta(minutes=5))


def test_a_decommissioned_node_loses_it_also_if_it_came_half_way(given: Delivery) -> None:
    node, name = _node(state="decommissioned"), str(NODE)
    for notes in (Notes().given(name, given), Notes().not_given(name, "nginx did not reload", "print", NOW)):
        assert to_be_taken_from(_fleet(node), notes, NOW, wanted=True) == [name]
        assert to_be_taken_from(_fleet(_node()), notes, NOW, wanted=True) == [], "in use, it keeps it"
        assert to_be_taken_from(_fleet(_node()), notes, NOW, wanted=False) == [name]
    tried = Notes().given(name, given).not_given(name, "no answer", TAKEN_BACK, NOW)
    assert to_be_taken_from(_fleet(node), tried, NOW + timedelta(minutes=4), wanted=True) == []
    assert to_be_taken_from(_fleet(node), tried, NOW + timedelta(minutes=5), wanted=True) == [name]
    assert to_be_taken_from(_fleet(node), Notes(), NOW, wanted=True) == []
    assert UUID(name) not in _fleet().nodes
    assert to_be_taken_from(_fleet(), tried, NOW, wanted=False) == [], "what is not declared cannot be reached"
