"""Holds on single fields: told and left, while all else is put right; and nothing is applied over and over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from reconciler.core.actions import BRINGING, ConfigureEnvironment
from reconciler.core.changes import Cause
from reconciler.core.entries import Stalled, parse
from reconciler.core.fleet import Fleet
from reconciler.core.health import way_back
from reconciler.core.holds import ALL, asked_for
from reconciler.core.jobs import JobType
from reconciler.core.manifests import Php
from reconciler.core.observed import ObservedEnvironment, ObservedHealth, ObservedNode
from reconciler.core.plan import Plan, Step, Verdict, decide, plan_data
from reconciler.core.policy import ENVIRONMENT_FIELDS, NODE_FIELDS, PHP
from reconciler.core.variables import EnvironmentVariables
from reconciler.core.views import markdown, text
from reconciler.store.documents import read
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, apply, configured, provisioned

PATH = "sites/acme/environments/production.yaml"
RELEASES = [f"{number}0000000-0000-4000-8000-000000000000" for number in range(1, 5)]

BEFORE: dict[str, Any] = {
    "release": {"id": RELEASES[0]},
    "content": {"id": RELEASES[1]},
    "wordpress": {"version": "7.1.1"},
    "options": {"blogname": "Acme", "posts_per_page": 7},
    "domains": [{"hostname": "acme.example.com", "tls": False}],
}
AFTER: dict[str, Any] = {
    "release": {"id": RELEASES[2], "source_type": "git", "source_ref": "https://x.example.com/a.git#v2"},
    "content": {"id": RELEASES[3], "origin": "restore", "backup": RELEASES[3]},
    "wordpress": {"version": "7.2"},
    "options": {"blogname": "Other", "posts_per_page": 9},
    "domains": [{"hostname": "other.example.com", "tls": False}],
    "cache": {"fastcgi": False, "redis": False},
    "php": {"memory_limit_mb": 512, "max_children": 3},
    "files": "locked",
}
MOVED: dict[str, tuple[str, ...]] = {
    "cache": ("spec.cache.fastcgi", "spec.cache.redis"),
    "cache.fastcgi": ("spec.cache.fastcgi",),
    "cache.redis": ("spec.cache.redis",),
    "php": ("spec.php.max_children", "spec.php.memory_limit_mb"),
    "php.memory_limit_mb": ("spec.php.memory_limit_mb",),
    "files": ("spec.files",),
    "options": ("options.blogname", "options.posts_per_page"),
    "options.blogname": ("options.blogname",),
    "domains": ("spec.domains",),
    "release": ("spec.release.id", "spec.release.source_ref", "spec.release.source_type", "spec.wordpress.version"),
    "content": ("spec.content.backup", "spec.content.id", "spec.content.origin"),
}
"""What of ``AFTER`` a hold covers."""


def _hold(field: str, **more: Any) -> dict[str, Any]:
    return {"field": field, "reason": "Campaign", "owner": "Ada", **more}


def _fleet(*holds: dict[str, Any], node_holds: tuple[dict[str, Any], ...] = (), **spec: Any) -> Fleet:
    documents = d.small()
    documents[PATH] = d.environment(**spec, reconcile={"holds": list(holds)})
    documents["nodes/web-1.yaml"]["spec"] |= {"reconcile": {"holds": list(node_holds)}}
    fleet = d.fleet_of(documents)
    assert fleet.stalled == (), fleet.stalled
    return fleet


def _variables(fleet: Fleet) -> EnvironmentVariables:
    return fleet.environment_variables(fleet.environments_by_key["acme/production"].id)


def _node(fleet: Fleet, there: ObservedEnvironment | None = None) -> ObservedNode:
    variables = _variables(fleet)
    node = provisioned(fleet.node_variables(fleet.nodes_by_slug["web-1"].id))
    return node.model_copy(update={"environments": {variables.id: there or configured(variables)}})


def _applied() -> ObservedNode:
    return _node(_fleet(**BEFORE))


def _decide(fleet: Fleet, node: ObservedNode, **more: Any) -> Plan:
    return decide(fleet, {"web-1": node}, ROLES, NOW, **more)


def _step(plan: Plan) -> Step:
    [step] = plan.steps
    return step


def _held(step: Step) -> set[str]:
    return {change.field for change in step.changes if change.held}


def _only(field: str) -> dict[str, Any]:
    """``BEFORE`` with nothing but the field moved."""
    top = field.partition(".")[0]
    names = {"release": ("release", "wordpress")}.get(top, (top,))
    return {**BEFORE, **{name: AFTER[name] for name in names}}


@pytest.mark.parametrize("field", MOVED)
def test_a_held_field_is_told_and_left(field: str) -> None:
    """Alone, it is only reported; the node's variables are those that it has."""
    fleet = _fleet(_hold(field), **_only(field))
    step = _step(_decide(fleet, _applied()))
    assert _held(step) == set(MOVED[field])
    others = {change.field for change in step.changes} - set(MOVED[field])
    assert (step.verdict is Verdict.REPORT) == (not others)
    if not others:
        assert step.reason
        assert "held by Ada: Campaign" in step.reason
        assert isinstance(step.action, ConfigureEnvironment)
        assert step.action.variables == _variables(_fleet(**BEFORE))


@pytest.mark.parametrize("field", [field for field in MOVED if field not in {"release", "content"}])
def test_all_else_is_healed_and_then_there_is_peace(field: str) -> None:
    settings = {name: AFTER[name] for name in ("cache", "php", "files", "options", "domains")}
    fleet = _fleet(_hold(field), **{**BEFORE, **settings})
    node = _applied()
    plan = _decide(fleet, node)
    step = _step(plan)
    assert (step.verdict, _held(step)) == (Verdict.APPLY, set(MOVED[field]))
    node = apply(step, node)
    left = _step(_decide(fleet, node))
    assert {change.field for change in left.changes} == _held(left) == set(MOVED[field])
    assert left.verdict is Verdict.REPORT
    # Without the hold the rest follows, and then nothing is left.
    free = _fleet(**{**BEFORE, **settings})
    node = apply(_step(_decide(free, node)), node)
    assert _decide(free, node).steps == ()


@pytest.mark.parametrize("field", ["release", "content"])
def test_content_and_the_code_that_it_brings_are_held_together(field: str) -> None:
    spec = {**BEFORE, **{name: AFTER[name] for name in ("release", "content", "wordpress", "cache")}}
    fleet, node = _fleet(_hold(field), **spec), _applied()
    step = _step(_decide(fleet, node))
    assert _held(step) == {*MOVED["release"], *MOVED["content"]}
    assert (step.verdict, type(step.action)) == (Verdict.APPLY, ConfigureEnvironment)
    left = _step(_decide(fleet, apply(step, node)))
    assert (left.verdict, _held(left)) == (Verdict.REPORT, {*MOVED["release"], *MOVED["content"]})


def test_content_alone_comes_in_beside_a_held_release() -> None:
    """A backup of the database brings no code."""
    fleet = _fleet(_hold("release"), **{**BEFORE, "content": AFTER["content"]})
    step = _step(_decide(fleet, _applied()))
    assert (type(step.action), _held(step)) == (BRINGING["restore"], set())


def test_an_option_that_was_set_in_wordpress_is_named_to_the_node() -> None:
    fleet = _fleet(_hold("options.blogname"), **BEFORE)
    there = configured(_variables(fleet))
    there = there.model_copy(update={"options": {"blogname": "Spike", "posts_per_page": "3"}})
    step = _step(_decide(fleet, _node(fleet, there)))
    assert [(change.field, change.cause, change.is_due) for change in step.changes] == [
        ("options.blogname", Cause.NODE_TOUCHED, False),
        ("options.posts_per_page", Cause.NODE_TOUCHED, True),
    ]
    assert isinstance(step.action, ConfigureEnvironment)
    assert (step.verdict, step.action.held_options) == (Verdict.APPLY, ("blogname",))
    assert step.action.variables.options == {"blogname": "Acme", "posts_per_page": "7"}
    whole = _step(_decide(_fleet(_hold("options"), **BEFORE), _node(fleet, there)))
    assert isinstance(whole.action, ConfigureEnvironment)
    assert (whole.verdict, whole.action.held_options) == (Verdict.REPORT, ("blogname", "posts_per_page"))


def test_an_option_that_is_only_just_declared_is_not_set_while_it_is_held() -> None:
    options = {**BEFORE["options"], "start_of_week": 1}
    fleet = _fleet(_hold("options.start_of_week"), **{**BEFORE, "options": options})
    step = _step(_decide(fleet, _applied()))
    assert (step.verdict, _held(step)) == (Verdict.REPORT, {"options.start_of_week"})
    assert isinstance(step.action, ConfigureEnvironment)
    assert "start_of_week" not in step.action.variables.options


def test_what_was_never_applied_is_made_whole() -> None:
    fleet = _fleet(_hold("cache"), **{**BEFORE, "cache": AFTER["cache"]})
    node = _node(fleet).model_copy(update={"environments": {}})
    step = _step(_decide(fleet, node))
    assert isinstance(step.action, ConfigureEnvironment)
    assert (step.verdict, step.action.variables) == (Verdict.APPLY, _variables(fleet))


def test_files_and_services_are_no_fields() -> None:
    fleet = _fleet(_hold("files"), _hold("cache"), **BEFORE)
    there = configured(_variables(fleet))
    there = there.model_copy(update={"files": dict.fromkeys(there.files, "f" * 64)})
    assert _step(_decide(fleet, _node(fleet, there))).verdict is Verdict.APPLY


@pytest.mark.parametrize(("hours", "verdict"), [(-1, Verdict.APPLY), (0, Verdict.APPLY), (1, Verdict.REPORT)])
def test_a_hold_ends(hours: int, verdict: Verdict) -> None:
    until = (NOW + timedelta(hours=hours)).isoformat()
    fleet = _fleet(_hold("cache.redis", until=until), **{**BEFORE, "cache": {"redis": False}})
    assert _step(_decide(fleet, _applied())).verdict is verdict


def test_a_person_s_request_is_not_held_back_in_what_it_is_about() -> None:
    spec = {**BEFORE, "cache": {"redis": False}, "php": AFTER["php"]}
    fleet = _fleet(_hold("cache"), _hold("php"), **spec)
    deliberate = frozenset({fleet.environments_by_key["acme/production"].id})
    for asked, held in (
        (ALL, set()),
        (asked_for("cache-update", {"redis": False}), set(MOVED["php"])),
        (asked_for("deploy", {}), {*MOVED["php"], "spec.cache.redis"}),
    ):
        step = _step(_decide(fleet, _applied(), deliberate=deliberate, asked=asked))
        assert _held(step) == held
    assert _held(_step(_decide(fleet, _applied(), asked=ALL))) == {*MOVED["php"], "spec.cache.redis"}


def test_a_request_lifts_the_holds_on_what_it_is_about() -> None:
    assert asked_for("cache-update", {"fastcgi": True, "redis": None}) == {"cache.fastcgi"}
    assert asked_for("restore", {}) == {"release", "content"}
    assert asked_for("reconcile", {}) == ALL
    assert all(asked_for(kind.value, {}) <= ALL for kind in JobType if kind is not JobType.CACHE_UPDATE)
    tops = {field.partition(".")[0] for field in (*ENVIRONMENT_FIELDS, *NODE_FIELDS)}
    assert tops == ALL


def test_a_name_that_is_held_is_not_given_to_another() -> None:
    documents = d.small() | {
        PATH: d.environment(**{**BEFORE, "domains": []}, reconcile={"holds": [_hold("domains")]}),
        "sites/shop/site.yaml": d.site(),
        "sites/shop/environments/production.yaml": d.environment(domains=BEFORE["domains"]),
    }
    fleet = d.fleet_of(documents)
    plan = _decide(fleet, _applied())
    step = plan.for_environment(fleet.environments_by_key["shop/production"].id)
    assert step
    assert step.verdict is Verdict.BLOCKED
    assert step.reason == "acme.example.com stays with acme/production as long as the domains of that are held."


def test_a_node_s_field_is_held() -> None:
    before = provisioned(_fleet().node_variables(_fleet().nodes_by_slug["web-1"].id))
    documents = d.small()
    documents["nodes/web-1.yaml"]["spec"] |= {
        "redis": {"memory_percent": 25},
        "reconcile": {"holds": [_hold("redis.memory_percent")]},
    }
    fleet = d.fleet_of(documents)
    environment = configured(_variables(fleet))
    node = before.model_copy(update={"environments": {_variables(fleet).id: environment}})
    step = _step(_decide(fleet, node))
    assert (step.verdict, step.action.verb, _held(step)) == (Verdict.REPORT, "provision", {"spec.redis.memory_percent"})
    deliberate = frozenset({fleet.nodes_by_slug["web-1"].id})
    assert _step(_decide(fleet, node, deliberate=deliberate)).verdict is Verdict.APPLY


def test_who_holds_it_is_told_everywhere() -> None:
    until = "2026-12-24T00:00:00+01:00"
    fleet = _fleet(_hold("cache.redis", until=until), **{**BEFORE, "cache": {"redis": False}})
    plan = _decide(fleet, _applied())
    told = "held by Ada until 2026-12-23T23:00:00Z: Campaign"
    assert told in text(plan)
    assert told in markdown(plan)
    [change] = plan_data(plan)["steps"][0]["changes"]
    assert change["held"] == {
        "field": "cache.redis",
        "owner": "Ada",
        "reason": "Campaign",
        "until": "2026-12-23T23:00:00Z",
    }
    assert plan.digest() != _decide(_fleet(**{**BEFORE, "cache": {"redis": False}}), _applied()).digest()


def test_trueup_does_not_go_back_from_a_release_that_is_held() -> None:
    fleet = _fleet(_hold("release"), **BEFORE)
    environment = fleet.environments_by_key["acme/production"]
    found = ObservedHealth(release=RELEASES[0], health="unhealthy")

    class Known:
        left_for = None

        def __init__(self) -> None:
            self.found = found

    id_ = UUID(RELEASES[0])
    assert way_back(environment, id_, {id_: Known()}, _node(fleet), NOW) == "Ada holds the release: Campaign"


def _refused(path: str, field: str) -> Stalled:
    what = "Node" if path.startswith("nodes/") else "Environment"
    rest = "address: 192.0.2.1" if what == "Node" else "type: production\n  node: web-1"
    document = read(
        path,
        f"""apiVersion: trueup/v1
kind: {what}
spec:
  {rest}
  reconcile:
    holds:
      - reason: Campaign
        owner: Ada
        field: {field}
""".encode(),
    )
    assert not isinstance(document, Stalled)
    found = parse(document)
    assert isinstance(found, Stalled), found
    return found


@pytest.mark.parametrize(
    "field", ["spec.cache", "cache.fastcgi.x", "node", "url", "options.", "options.<name>", "redis", "wordpress", "''"]
)
def test_what_cannot_be_held_is_refused_with_what_can(field: str) -> None:
    refused = _refused(PATH, field)
    assert refused.line == 10
    assert ", ".join(ENVIRONMENT_FIELDS) in refused.message


@pytest.mark.parametrize("field", ["cache", "address", "ssh.port", "options.blogname"])
def test_what_cannot_be_held_of_a_node_is_refused(field: str) -> None:
    documents = d.small()
    documents["nodes/web-1.yaml"]["spec"]["reconcile"] = {"holds": [_hold(field)]}
    [stalled, *_] = d.fleet_of(documents).stalled
    assert "Those are: redis, redis.memory_percent" in stalled.message


@pytest.mark.parametrize("missing", ["reason", "owner"])
def test_a_hold_says_who_and_why(missing: str) -> None:
    hold = _hold("cache")
    del hold[missing]
    documents = d.small()
    documents[PATH] = d.environment(reconcile={"holds": [hold]})
    [stalled] = d.fleet_of(documents).stalled
    assert f"holds.0.{missing}: Field required" in stalled.message


def test_every_field_that_can_be_held_is_tried_here() -> None:
    assert set(PHP) == set(Php.model_fields)
    tried = {field.partition(".")[0] for field in MOVED}
    assert tried == {field.partition(".")[0] for field in ENVIRONMENT_FIELDS}
