"""Options of WordPress in a document: what may be declared, what is told of them, and how they are adopted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.changes import Cause, Change, diff_environment
from reconciler.core.entries import Entry, EnvironmentEntry, Stalled, parse
from reconciler.core.errors import Conflict
from reconciler.core.fleet import Fleet
from reconciler.core.intents import Adopt, AdoptOptions, CreateEnvironment, Edit, evaluate
from reconciler.core.observed import ObservedEnvironment
from reconciler.core.options import changed_options, shown, with_values
from reconciler.core.plan import decide
from reconciler.core.review.facts import of_environment
from reconciler.core.snapshot import shareable
from reconciler.store.documents import read
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, configured, provisioned

PATH = "sites/acme/environments/production.yaml"
NEW = UUID("3f2a9c1e-4b7d-4a11-8c55-0123456789ab")


def _fleet(options: dict[str, Any] | None = None, **spec: Any) -> Fleet:
    documents = d.small()
    documents[PATH] = d.environment(**({"options": options} if options is not None else {}), **spec)
    fleet = d.fleet_of(documents)
    assert fleet.stalled == (), fleet.stalled
    return fleet


def _environment(fleet: Fleet) -> EnvironmentEntry:
    return fleet.environments_by_key["acme/production"]


def _there(fleet: Fleet, **observed: str | None) -> ObservedEnvironment:
    """The environment as it was applied, with these options set in WordPress since."""
    there = configured(fleet.environment_variables(_environment(fleet).id))
    return there.model_copy(update={"options": {**there.options, **observed}})


def _diff(fleet: Fleet, there: ObservedEnvironment) -> tuple[Change, ...]:
    return diff_environment(fleet.environment_variables(_environment(fleet).id), ROLES.environment, there)


def _parsed(line: str, type_: str = "production") -> Entry | Stalled | None:
    text = f"""apiVersion: trueup/v1
kind: Environment
spec:
  type: {type_}
  node: web-1
  options:
    blogname: Acme
    {line}
"""
    document = read(PATH, text.encode())
    assert not isinstance(document, Stalled)
    return parse(document)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ('"0"', "0"),
        ("0", "0"),
        ("-3", "-3"),
        ("true", "1"),
        ("false", "0"),
        ("/%postname%/", "/%postname%/"),
        ("''", ""),
    ],
)
def test_values_are_what_wordpress_stores(written: str, stored: str) -> None:
    entry = _parsed(f"value: {written}")
    assert isinstance(entry, EnvironmentEntry)
    assert entry.manifest.spec.options == {"blogname": "Acme", "value": stored}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("siteurl: https://other.example.com", "declare spec.domains instead"),
        ("HOME: https://other.example.com", "declare spec.domains instead"),
        ("cron: 1", "WordPress changes it by itself"),
        ("_site_transient_update_core: x", "WordPress changes it by itself"),
        ("rewrite_rules: ''", "WordPress changes it by itself"),
        ("template: twentytwentyfive", "goes with the code"),
        ("active_plugins: x", "goes with the code"),
        ("woocommerce_db_version: 9", "the code brings it about"),
        ("wp_user_roles: x", "roles and their rights"),
        ("auth_key: x", "it is a secret"),
        ("wordpress_api_key: x", "it is a secret"),
        ("smtp_password: x", "it is a secret"),
        ("trueup_anything: x", "Trueup decides it"),
        ("has space: x", "should match pattern"),
        ("value: 1.5", "must be text, a whole number, true or false"),
        ("value: [a]", "must be text, a whole number, true or false"),
        ("value:", "must be text, a whole number, true or false"),
        ("value: 'a:1:{i:0;i:1;}'", "only single values"),
        ('value: "a\\u0007b"', "control characters"),
        (f"value: {'x' * 2001}", "at most 2000 characters, and has 2001"),
    ],
)
def test_what_cannot_be_declared_is_refused_at_its_line(line: str, why: str) -> None:
    refused = _parsed(line)
    assert isinstance(refused, Stalled)
    assert "[key]" not in refused.message
    assert (refused.line, why in refused.message) == (8, True), refused
    assert "spec.options." in refused.message


def test_a_name_in_two_cases_is_one_option() -> None:
    refused = _parsed("BlogName: Other")
    assert isinstance(refused, Stalled)
    assert "named twice" in refused.message


@pytest.mark.parametrize("type_", ["staging", "clone"])
def test_a_copy_is_never_opened_to_search_engines(type_: str) -> None:
    def stalled(value: str) -> list[str]:
        documents = d.small() | {
            "sites/acme/environments/copy.yaml": d.environment(type=type_, options={"blog_public": value})
        }
        return [one.message for one in d.fleet_of(documents).stalled]

    assert stalled("0") == []
    [message] = stalled("1")
    assert f"search engines are kept away from a {type_} environment" in message
    assert _fleet({"blog_public": "1"}).stalled == ()


def test_an_environment_without_options_differs_in_none() -> None:
    fleet = _fleet()
    assert _diff(fleet, _there(fleet)) == ()


def test_what_is_set_in_wordpress_is_a_change_of_that_option_alone() -> None:
    fleet = _fleet({"blogname": "Acme", "posts_per_page": 7})
    assert _diff(fleet, _there(fleet)) == ()
    there = _there(fleet, blogname="Spike", posts_per_page=None)
    assert _diff(fleet, there) == (
        Change("options.blogname", "Acme", "Spike", Cause.NODE_TOUCHED),
        Change("options.posts_per_page", "7", "nothing", Cause.NODE_TOUCHED),
    )


def test_what_is_declared_anew_is_told_with_what_is_there() -> None:
    before, after = _fleet({"blogname": "Acme"}), _fleet({"blogname": "Other", "start_of_week": 1})
    there = _there(before, start_of_week="0")
    assert _diff(after, there) == (
        Change("options.blogname", "Other", "Acme", Cause.DESIRED_MOVED),
        Change("options.start_of_week", "1", "0", Cause.DESIRED_MOVED),
    )
    assert _diff(_fleet({}), _there(before)) == (Change("options.blogname", "nothing", "Acme", Cause.DESIRED_MOVED),)


def test_what_wordpress_made_of_a_value_is_no_difference() -> None:
    """``Tom & Jerry`` is stored as ``Tom &amp; Jerry``; what was stored is what is looked for."""
    fleet = _fleet({"blogname": "Tom & Jerry"})
    there = _there(fleet, blogname="Tom &amp; Jerry")
    assert there.applied
    stored = there.applied.model_copy(update={"options": {"blogname": "Tom &amp; Jerry"}})
    assert _diff(fleet, there.model_copy(update={"applied": stored})) == ()


def test_options_that_could_not_be_read_are_no_difference() -> None:
    fleet = _fleet({"blogname": "Acme"})
    assert _diff(fleet, _there(fleet).model_copy(update={"options": {}})) == ()


@given(st.text())
def test_a_value_is_shown_on_one_line(value: str) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) < 260


def test_a_plan_from_a_snapshot_is_the_same() -> None:
    before, after = _fleet({"blogname": "Acme", "start_of_week": 1}), _fleet({"blogname": "Other", "start_of_week": 1})
    environment = _environment(after)
    node = provisioned(after.node_variables(after.nodes_by_slug["web-1"].id))
    node = node.model_copy(update={"environments": {str(environment.id): _there(before, start_of_week="0")}})
    plans = [decide(after, {"web-1": one}, ROLES, NOW) for one in (node, shareable(node))]
    assert plans[0] == plans[1]
    assert [change.field for change in plans[0].steps[0].changes] == ["options.blogname", "options.start_of_week"]


def test_a_review_tells_each_option() -> None:
    before, after = _fleet({"blogname": "Acme"}), _fleet({"blogname": "Other"})
    facts = of_environment((before, _environment(before)), (after, _environment(after)))
    assert [(one.what, one.before, one.after) for one in facts] == [("option blogname", "Acme", "Other")]


# Adopting


def _adopted(fleet: Fleet, **found: str | None) -> Edit:
    return evaluate(AdoptOptions(environment_id=_environment(fleet).id, options=found), fleet, {}, NOW)


def test_a_drift_check_keeps_the_whole_value() -> None:
    fleet = _fleet({"blogname": "Acme", "blogdescription": "One"})
    there = _there(fleet, blogname="x" * 500, blogdescription=None)
    differences = [with_values(vars(change), there.options) for change in _diff(fleet, there)]
    assert changed_options(differences) == {"blogname": "x" * 500, "blogdescription": None}
    moved = [with_values(vars(change), {}) for change in _diff(_fleet({"blogname": "New"}), _there(fleet))]
    assert changed_options(moved) == {}


def test_adopting_options_declares_them_and_no_release() -> None:
    fleet = _fleet({"blogname": "Acme", "posts_per_page": 7, "start_of_week": 1})
    edit = _adopted(fleet, blogname="Spike", posts_per_page=None, undeclared="x")
    assert edit.assign == {PATH: {("spec", "options", "blogname"): "Spike"}}
    assert edit.unset == {PATH: frozenset({("spec", "options", "posts_per_page")})}


def test_adopting_code_takes_the_options_along() -> None:
    fleet = _fleet({"blogname": "Acme"})
    intent = Adopt(environment_id=_environment(fleet).id, release_id=NEW, options={"blogname": "Spike"})
    edit = evaluate(intent, fleet, {}, NOW)
    assert edit.assign[PATH].keys() == {("spec", "release"), ("spec", "options", "blogname")}


@pytest.mark.parametrize(("value", "why"), [("a:0:{}", "only single values"), ("x" * 3000, "at most 2000 characters")])
def test_a_value_that_no_document_can_hold_is_not_adopted(value: str, why: str) -> None:
    with pytest.raises(Conflict, match=why):
        _adopted(_fleet({"blogname": "Acme"}), blogname=value)


def test_an_opened_copy_is_not_adopted() -> None:
    documents = d.small() | {
        "sites/acme/environments/copy.yaml": d.environment(type="staging", options={"blog_public": "0"})
    }
    fleet = d.fleet_of(documents)
    copy = fleet.environments_by_key["acme/copy"]
    with pytest.raises(Conflict, match="search engines are kept away"):
        evaluate(AdoptOptions(environment_id=copy.id, options={"blog_public": "1"}), fleet, {}, NOW)


def test_a_copy_declares_what_its_source_does_but_for_search_engines() -> None:
    fleet = _fleet({"blogname": "Acme", "blog_public": 1})
    ids = dict.fromkeys(("environment_id", "release_id", "content_id"), NEW)
    intent = CreateEnvironment.model_validate(
        {"site_id": fleet.sites_by_slug["acme"].id, "name": "Staging", "slug": "staging", "type": "staging", **ids}
    )
    [document] = evaluate(intent, fleet, {}, NOW).create.values()
    assert document["spec"]["options"] == {"blogname": "Acme"}
