"""Desired and observed in, plan out: each case is a file, and each has its no-op twin."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reconciler.core.fleet import Fleet
from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.core.plan import Answer, Plan, Verdict, decide
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, RUNNING, apply, configured, fresh, provisioned

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))


def _fleet(case: dict[str, Any]) -> Fleet:
    documents = d.small()
    for path, patch in case.get("desired", {}).items():
        documents[path] = _merged(documents.get(path, {}), patch)
    return d.fleet_of(documents)


def _merged(base: Any, patch: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    return {key: _merged(base.get(key), patch[key]) if key in patch else base[key] for key in base | patch}


def _answer(kind: str, fleet: Fleet) -> Answer:
    node = fleet.nodes_by_slug["web-1"]
    if kind == "unreachable":
        return Unreachable(since=NOW, reason="connection refused")
    if kind == "fresh":
        return fresh()
    there = provisioned(fleet.node_variables(node.id))
    if kind == "provisioned":
        return there
    variables = fleet.environment_variables(fleet.environments_by_key["acme/production"].id)
    return there.model_copy(update={"environments": {variables.id: configured(variables)}})


def answered(path: Path) -> tuple[Fleet, Answer]:
    """What a case desires, and what its node answers."""
    case = YAML(typ="safe").load(path)
    return _fleet(case), _touched(_answer(case["observed"], _fleet({})), case)


def _touched(answer: Answer, case: dict[str, Any]) -> Answer:
    if not isinstance(answer, ObservedNode):
        return answer
    data = answer.model_dump(mode="json") | {"hold": case.get("hold")}
    for id_, environment in data["environments"].items():
        touch = json.loads(_filled(case.get("touch", {}), environment["applied"]["variables"]))
        data["environments"][id_] = _merged(environment, touch)
    return ObservedNode.model_validate(data)


def _filled(part: Any, variables: dict[str, Any]) -> str:
    """A part of a case as JSON, with the environment's own ids where it says ``{id}``, ``{release}``, ``{content}``."""
    text = json.dumps(part).replace("{id}", variables["id"])
    return text.replace("{release}", variables["release"]["id"]).replace("{content}", variables["content"]["id"])


def _lines(plan: Plan) -> list[str]:
    lines = [f"silent {s.node} {' '.join(s.environments)}" for s in plan.silent]
    for step in plan.steps:
        lines.append(f"{step.action.verb} {step.action.target} {step.verdict}")
        lines += [f"{c.field}: {c.desired} <- {c.observed} ({c.cause})" for c in step.changes]
    return lines


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = YAML(typ="safe").load(path)
    fleet, before = _fleet(case), _fleet({})
    untouched = _answer(case["observed"], before)
    answer = _touched(untouched, case)
    environment = before.environment_variables(before.environments_by_key["acme/production"].id)
    expect = json.loads(
        _filled(case["expect"], environment.model_dump(mode="json")).replace("{digest}", environment.digest()[:12])
    )
    plan = decide(fleet, {"web-1": answer}, ROLES, NOW)
    assert _lines(plan) == expect
    _assert_twin_is_empty(fleet, answer, plan)


def _assert_twin_is_empty(fleet: Fleet, answer: Answer, plan: Plan) -> None:
    """Once all that may be applied is applied, nothing is left to apply."""
    for _ in range(2):
        for step in plan.to_apply:
            assert isinstance(answer, ObservedNode)
            answer = apply(step, answer)
        plan = decide(fleet, {"web-1": answer}, ROLES, NOW)
    assert plan.to_apply == ()


def test_cases_are_found() -> None:
    assert len(CASES) >= 15


def test_deliberate_apply_overrules_report_but_not_pause() -> None:
    for mode, verdict in (("report", Verdict.APPLY), ("paused", Verdict.PAUSED)):
        fleet = _fleet(
            {"desired": {"sites/acme/environments/production.yaml": {"spec": {"reconcile": {"mode": mode}}}}}
        )
        environment = fleet.environments_by_key["acme/production"]
        plan = decide(
            fleet, {"web-1": _answer("provisioned", fleet)}, ROLES, NOW, deliberate=frozenset({environment.id})
        )
        assert [step.verdict for step in plan.steps] == [verdict]


def _digest(answer: str = "provisioned", now: datetime = NOW, **spec: Any) -> str:
    fleet = _fleet({"desired": {"sites/acme/environments/production.yaml": {"spec": spec}}})
    return decide(fleet, {"web-1": _answer(answer, fleet)}, ROLES, now).digest()


def test_the_digest_is_that_of_all_that_would_be_done() -> None:
    """Of an environment that is made from nothing, too, which is one change whatever it is to be."""
    same = _digest(), _digest()
    assert same[0] == same[1]
    others = [
        _digest(cache={"redis": False}),
        _digest(domains=[{"hostname": "shop.example.com"}]),
        _digest(reconcile={"mode": "paused"}),
        _digest("fresh"),
        _digest("configured"),
    ]
    assert len({same[0], *others}) == 6


def test_the_digest_is_none_of_the_clock_s() -> None:
    """A window that opens or closes between review and apply changes nothing of what a person asks for."""
    windows = [{"kind": "allow", "cron": "0 2 * * *", "minutes": 60}]
    assert _digest(reconcile={"windows": windows}) == _digest(
        now=NOW.replace(hour=2, minute=30), reconcile={"windows": windows}
    )


def test_environment_that_is_on_another_node_is_not_made_again() -> None:
    before = _fleet({})
    documents = d.small() | {"nodes/web-2.yaml": d.node("10.0.0.2")}
    documents["sites/acme/environments/production.yaml"]["spec"]["node"] = "web-2"
    moved = d.fleet_of(documents)
    empty = provisioned(moved.node_variables(moved.nodes_by_slug["web-2"].id))
    plan = decide(moved, {"web-1": _answer("configured", before), "web-2": empty}, ROLES, NOW)
    assert [(s.verdict, s.reason) for s in plan.steps] == [
        (Verdict.BLOCKED, "acme/production is on node web-1. Set spec.node back to web-1.")
    ]
    environment = moved.environments_by_key["acme/production"]
    silent: dict[str, Answer] = {"web-1": Unreachable(since=NOW, reason="timeout"), "web-2": empty}
    plan = decide(moved, silent, ROLES, NOW, placed={environment.id: "web-1"}.get)
    assert [s.verdict for s in plan.steps] == [Verdict.BLOCKED]


def test_a_document_that_is_gone_deletes_nothing() -> None:
    answer = _answer("configured", _fleet({}))
    documents = d.small()
    del documents["sites/acme/environments/production.yaml"]
    plan = decide(d.fleet_of(documents), {"web-1": answer}, ROLES, NOW)
    assert plan.steps == ()
    assert len(plan.orphans) == 1


def test_upgrade_of_the_role_is_a_change() -> None:
    fleet = _fleet({})
    roles = type(ROLES)(node=ROLES.node, environment="c" * 64)
    plan = decide(fleet, {"web-1": _answer("configured", fleet)}, roles, NOW)
    assert _lines(plan)[1] == f"role: {'c' * 12} <- {'b' * 12} (Trueup was upgraded)"


_touches = st.fixed_dictionaries(
    {},
    optional={
        "pending": st.booleans(),
        "database": st.booleans(),
        "wordpress_version": st.sampled_from([None, "7.1.1", "6.5"]),
        "services": st.dictionaries(
            st.sampled_from(["trueup-php@{id}.service", "trueup-cron@{id}.timer"]),
            st.fixed_dictionaries(
                {
                    "active": st.sampled_from(["active", "inactive", "failed", "activating"]),
                    "enabled": st.sampled_from(["enabled", "disabled", "masked", ""]),
                }
            ),
        ),
        "files": st.dictionaries(
            st.just("/etc/nginx/sites-enabled/trueup-{id}.conf"), st.one_of(st.none(), st.text(max_size=8))
        ),
    },
)
_desired = st.fixed_dictionaries(
    {},
    optional={
        "cache": st.fixed_dictionaries({}, optional={"fastcgi": st.booleans(), "redis": st.booleans()}),
        "files": st.sampled_from(["writable", "locked"]),
        "php": st.fixed_dictionaries({"memory_limit_mb": st.integers(64, 4096)}),
        "reconcile": st.fixed_dictionaries({"mode": st.sampled_from(["enforce", "report", "paused"])}),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["fresh", "provisioned", "configured", "unreachable"]),
    touch=_touches,
    spec=_desired,
    hold=st.sampled_from([None, "brake"]),
    stalled=st.booleans(),
)
def test_decide_converges_in_one_pass_and_destroys_nothing(
    kind: str, touch: dict, spec: dict, hold: str | None, stalled: bool
) -> None:
    desired: dict[str, Any] = {"sites/acme/environments/production.yaml": {"spec": spec}}
    if stalled:
        desired["sites/acme/environments/production.yaml"]["spec"] = spec | {"node": "web-9"}
    fleet = _fleet({"desired": desired})
    answer = _touched(_answer(kind, _fleet({})), {"touch": touch, "hold": hold})
    plan = decide(fleet, {"web-1": answer}, ROLES, NOW)
    if isinstance(answer, Unreachable) or hold is not None:
        assert plan.to_apply == ()
    if stalled:
        assert not any(step.action.verb == "configure" for step in plan.steps)
    for step in plan.to_apply:
        before = answer
        assert isinstance(before, ObservedNode)
        answer = apply(step, before)
        assert before.environments.keys() <= answer.environments.keys()
    after = decide(fleet, {"web-1": answer}, ROLES, NOW)
    if not any(step.action.verb == "provision" for step in plan.to_apply):
        assert after.to_apply == ()


@settings(max_examples=50, deadline=None)
@given(spec=_desired)
def test_decide_of_what_is_there_is_empty(spec: dict) -> None:
    fleet = _fleet({"desired": {"sites/acme/environments/production.yaml": {"spec": spec}}})
    assert decide(fleet, {"web-1": _answer("configured", fleet)}, ROLES, NOW).is_empty


def test_the_nodes_own_redis_is_stopped_when_no_environment_uses_it() -> None:
    """Those of an earlier version keep their objects there until they are applied."""
    fleet = d.fleet_of(d.small())
    (one,) = fleet.environments
    variables = fleet.environment_variables(one)
    former = configured(variables)
    (web,) = fleet.nodes
    node = provisioned(fleet.node_variables(web))
    assert node.applied
    shared = "redis-server.service"
    applied = node.applied.model_copy(update={"services": (*node.applied.services, shared)})
    node = node.model_copy(update={"applied": applied, "services": {**node.services, shared: RUNNING}})

    def told(*units: str, **update: Any) -> list[str]:
        assert former.applied
        known = former.applied.model_copy(update={"services": (*former.applied.services, *units), **update})
        environment = former.model_copy(update={"applied": known, "services": dict.fromkeys(known.services, RUNNING)})
        answer = node.model_copy(update={"environments": {variables.id: environment}})
        plan = decide(fleet, {"web-1": answer}, ROLES, NOW)
        return [change.field for step in plan.steps for change in step.changes]

    assert told() == []
    assert told(f"trueup-redis@{variables.id}.service") == [f"service {shared}"]
