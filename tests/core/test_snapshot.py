"""What leaves the control plane: no secret, and all that a plan needs."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from reconciler.core.observed import CertificateFailure, ObservedDomain, ObservedNode, Unreachable
from reconciler.core.plan import decide
from reconciler.core.snapshot import ExportedNode, ExportedRoles, FleetSnapshot, shareable
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, configured, provisioned, served
from tests.core.test_plan import CASES, answered

SECRET = "correct-horse-battery"


def _planted(node: ObservedNode) -> ObservedNode:
    """The node with a secret wherever a manifest or an answer has room for one that no plan needs."""
    data: dict[str, Any] = node.model_dump(mode="json")
    for applied in (data["applied"], *(one["applied"] for one in data["environments"].values())):
        applied["variables"] |= {"db_password": SECRET, "url": {"password": SECRET}, "job": {"token": SECRET}}
        applied["release_details"] = {
            applied["releases"][0] if applied["releases"] else "r": {"token": SECRET, "wordpress_version": SECRET}
        }
    for environment in data["environments"].values():
        variables = environment["applied"]["variables"]
        variables["content"] |= {"admin_password": SECRET}
        variables["release"] = {**variables["release"], "deploy_key": SECRET}
        variables["domains"] = [{"id": "1", "hostname": "a.example", "key": SECRET, "tls": [{"key": SECRET}]}]
        variables["hostnames"] = [{"password": SECRET}]
        environment["applied"]["url"] = f"https://user:{SECRET}@a.example"
        environment["domains"]["a.example"] = {
            "failure": {"code": "acme_refused", "message": SECRET, "at": NOW.isoformat(), "count": 1}
        }
        environment["differences"] = [{"path": SECRET, "kind": "unknown", "area": "uploads"}]
    data |= {"hostname": SECRET, "versions": {"php": SECRET}, "artifacts": {"a": [SECRET]}, "os_id": SECRET}
    return ObservedNode.model_validate(data)


def _node() -> ObservedNode:
    fleet = d.fleet_of(d.small())
    node = provisioned(fleet.node_variables(fleet.nodes_by_slug["web-1"].id))
    variables = fleet.environment_variables(fleet.environments_by_key["acme/production"].id)
    return node.model_copy(update={"environments": {variables.id: configured(variables)}})


def test_a_planted_secret_stays_behind() -> None:
    planted = _planted(_node())
    assert planted.model_dump_json().count(SECRET) > 15
    assert SECRET not in shareable(planted).model_dump_json()


def test_neither_does_a_plan_show_what_it_has_no_field_for() -> None:
    fleet, (planted,) = d.fleet_of(d.small()), _planted(_node()).environments.values()
    assert planted.applied
    applied = planted.applied.model_copy(update={"digest": "f" * 64})
    there = planted.model_copy(update={"applied": applied, "differences": None})
    plan = decide(fleet, {"web-1": _with(_node(), there)}, ROLES, NOW)
    assert any(change.field == "spec.domains" for step in plan.steps for change in step.changes)
    assert SECRET not in json.dumps([str(step.changes) for step in plan.steps])


def test_what_another_version_asked_for_is_a_difference() -> None:
    node = _node()
    (environment,) = node.environments.values()
    assert environment.applied
    variables = {**environment.applied.variables, "brotli": True}
    applied = environment.applied.model_copy(update={"variables": variables, "digest": "f" * 64})
    there = environment.model_copy(update={"applied": applied})
    (step,) = decide(d.fleet_of(d.small()), {"web-1": _with(node, there)}, ROLES, NOW).steps
    assert [(change.field, change.observed) for change in step.changes] == [("settings", "f" * 12)]


def _with(node: ObservedNode, environment: Any) -> ObservedNode:
    (id_,) = node.environments
    return node.model_copy(update={"environments": {id_: environment}})


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_it_decides_as_the_whole_does(path: Any) -> None:
    fleet, answer = answered(path)
    if isinstance(answer, ObservedNode):
        # Only a deep look has them, and what is remembered is never one.
        shallow = {id_: one.model_copy(update={"differences": None}) for id_, one in answer.environments.items()}
        answer = answer.model_copy(update={"environments": shallow})
    shared = answer if isinstance(answer, Unreachable) else shareable(answer)
    read = type(shared).model_validate_json(shared.model_dump_json(exclude_defaults=True))
    whole, part = (decide(fleet, {"web-1": one}, ROLES, NOW) for one in (answer, read))
    assert part == whole
    assert part.digest() == whole.digest()


@pytest.mark.parametrize(
    "domain",
    [
        ObservedDomain(served=served(days=3)),
        ObservedDomain(served=served(is_kept=False)),
        ObservedDomain(failure=CertificateFailure(code="dns_elsewhere", message="m", at=NOW, count=2)),
    ],
)
def test_certificates_are_told_as_from_the_whole(domain: ObservedDomain) -> None:
    documents = d.small()
    documents["sites/acme/environments/production.yaml"] = d.environment(domains=[{"hostname": "a.example"}])
    fleet = d.fleet_of(documents)
    variables = fleet.environment_variables(fleet.environments_by_key["acme/production"].id)
    environment = configured(variables).model_copy(update={"domains": {"a.example": domain}})
    node = _with(_node(), environment)
    whole, part = (decide(fleet, {"web-1": one}, ROLES, NOW) for one in (node, shareable(node)))
    assert whole.steps
    assert part == whole


def test_what_is_as_it_was_applied_is_left_out() -> None:
    (environment,) = shareable(_node()).environments.values()
    assert environment.applied
    assert (environment.files, environment.applied.files, environment.applied.services) == ({}, {}, ())


def test_answers_and_places_by_name() -> None:
    fleet, node = d.fleet_of(d.small()), _node()
    (environment_id,) = node.environments
    silent = Unreachable(since=NOW, reason="no route")
    web = fleet.nodes_by_slug["web-1"].id
    gone = ExportedNode(id=UUID(int=7), checked_at=NOW, observed=node, unreachable=None)
    for unreachable, answer in ((None, node), (silent, silent)):
        seen = ExportedNode(id=web, checked_at=NOW, observed=node, unreachable=unreachable)
        snapshot = FleetSnapshot(
            trueup="0.1.0",
            made_at=NOW,
            revision="0" * 40,
            roles=ExportedRoles(node="a", environment="b"),
            nodes=(seen, gone),
        )
        assert snapshot.answers(fleet) == {"web-1": answer}
        assert snapshot.placements(fleet) == {UUID(environment_id): "web-1"}
