"""What holds back steps that could go each by itself."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.fleet import Fleet
from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.core.plan import Answer, Plan, Verdict, decide
from reconciler.core.restraint import restrain
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, configured, fresh, provisioned

NOBODY: frozenset[UUID] = frozenset()
PRODUCTION, STAGING = "acme/production", "acme/staging"


@dataclass
class Checked:
    health: str
    checked_at: datetime


@dataclass
class Told:
    """What is known, as the test says it."""

    plan: Plan
    commits: dict[str, str] = field(default_factory=dict)
    applied: dict[str, datetime] = field(default_factory=dict)
    looks: dict[str, Checked] = field(default_factory=dict)
    failed: dict[tuple[UUID, str], str] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)

    def whole(self) -> Plan:
        return self.plan

    def answer(self, node: str) -> Answer | None:
        return self.answers.get(node)

    def last_commit(self, path: str) -> str | None:
        return self.commits.get(path.removeprefix("sites/").replace("/environments/", "/").removesuffix(".yaml"))

    def applied_at(self, environment: EnvironmentEntry) -> datetime | None:
        return self.applied.get(environment.key)

    def checked(self, environment: EnvironmentEntry) -> Checked | None:
        return self.looks.get(environment.key)

    def unhealthy(self, environment_id: UUID, digest: str) -> str | None:
        return self.failed.get((environment_id, digest))


def fleet(**platform: object) -> Fleet:
    """One site with a production and a staging environment whose caches are on."""
    documents = d.small()
    documents["sites/acme/environments/production.yaml"] = d.environment(cache={"fastcgi": True})
    documents["sites/acme/environments/staging.yaml"] = d.environment(type="staging", cache={"fastcgi": True})
    documents["platform.yaml"] = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": {"reconcile": platform}}
    return d.fleet_of(documents)


def plan_of(desired: Fleet, *settled: str) -> Plan:
    """The environments but for the settled ones have their caches off so far."""
    node = provisioned(desired.node_variables(next(iter(desired.nodes))))
    environments = {}
    for environment in desired.environments.values():
        variables = desired.environment_variables(environment.id)
        was = variables if environment.key in settled else variables.model_copy(update={"fastcgi_cache": False})
        environments[str(environment.id)] = configured(was)
    answer: ObservedNode = node.model_copy(update={"environments": environments})
    return decide(desired, {"web-1": answer}, ROLES, NOW)


def held(plan: Plan, desired: Fleet, known: Told, deliberate: frozenset[UUID] = NOBODY) -> dict[str, str | None]:
    """What waits, and for what. All other steps go."""
    steps = restrain(plan, desired, known, deliberate).steps
    assert {step.verdict for step in steps} <= {Verdict.APPLY, Verdict.WAITING}
    return {step.action.target: step.reason for step in steps if step.verdict is Verdict.WAITING}


def both(plan: Plan, **more: object) -> Told:
    applied = {PRODUCTION: NOW, STAGING: NOW}
    return Told(plan, commits={PRODUCTION: "c1", STAGING: "c1"}, applied=applied, **more)  # type: ignore[arg-type]


def test_nothing_is_held_where_nothing_is_known() -> None:
    desired = fleet()
    plan = plan_of(desired)
    assert len(plan.to_apply) == 2
    assert restrain(plan, desired, Told(plan), NOBODY) is plan


def test_production_comes_after_staging_that_the_same_commit_changed() -> None:
    desired = fleet()
    plan = plan_of(desired)
    assert held(plan, desired, both(plan)) == {
        PRODUCTION: "Waits for acme/staging to be applied. The commit that changed it changed this environment, too."
    }


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (None, "Waits for a look at whether acme/staging serves."),
        (Checked("healthy", NOW), "Waits for a look at whether acme/staging serves."),
        (
            Checked("unhealthy", NOW + timedelta(seconds=1)),
            "Waits for acme/staging, which is unhealthy, to be healthy.",
        ),
        (Checked("unknown", NOW + timedelta(seconds=1)), "Waits for acme/staging, which is unknown, to be healthy."),
        (Checked("healthy", NOW + timedelta(seconds=1)), None),
    ],
)
def test_and_only_once_it_was_found_healthy_after_that(look: Checked | None, reason: str | None) -> None:
    desired = fleet()
    plan = plan_of(desired, STAGING)
    found = held(plan, desired, both(plan, looks={STAGING: look} if look else {}))
    assert [*found] == ([PRODUCTION] if reason else [])
    assert reason is None or str(found[PRODUCTION]).startswith(reason)


def test_it_does_not_wait_for_what_another_commit_changed_nor_for_what_is_only_being_made() -> None:
    desired = fleet()
    plan = plan_of(desired)
    apart = Told(plan, commits={PRODUCTION: "c1", STAGING: "c2"}, applied={PRODUCTION: NOW, STAGING: NOW})
    assert held(plan, desired, apart) == {}
    together = both(plan)
    del together.applied[STAGING]
    assert held(plan, desired, together) == {}
    together = both(plan)
    del together.applied[PRODUCTION]
    assert held(plan, desired, together) == {}, "made together: staging may be a clone of it"


def test_what_a_person_asks_for_is_not_held() -> None:
    desired = fleet(blast_limit=1)
    plan = plan_of(desired)
    production = desired.environments_by_key[PRODUCTION].id
    assert [*held(plan, desired, both(plan), frozenset({production}))] == [STAGING]


def test_more_than_the_limit_at_once_is_left_to_a_person() -> None:
    desired = fleet(blast_limit=1)
    plan = plan_of(desired)
    found = held(plan, desired, Told(plan))
    assert found.keys() == {PRODUCTION, STAGING}
    assert str(found[STAGING]).startswith("2 environments would change at once, more than the 1 of spec.reconcile.")
    one = plan_of(desired, STAGING)
    assert held(one, desired, Told(plan)) == {PRODUCTION: found[PRODUCTION]}, "the whole fleet counts"
    assert held(one, desired, Told(one)) == {}


def nodes(**answers: ObservedNode | Unreachable) -> tuple[Fleet, Told]:
    """A fleet of these nodes that may change one at once; ``answers``: what each said last."""
    documents = {f"nodes/{name}.yaml": d.node(f"10.0.0.{number}") for number, name in enumerate(answers, 1)}
    limits = {"reconcile": {"node_blast_limit": 1}}
    documents["platform.yaml"] = {"apiVersion": "trueup/v1", "kind": "Platform", "spec": limits}
    desired = d.fleet_of(documents)
    return desired, Told(decide(desired, answers, ROLES, NOW), answers=dict(answers))


def outdated(name: str) -> ObservedNode:
    """Provisioned by another version of Trueup."""
    desired, _ = nodes(**{name: fresh(name)})
    return provisioned(desired.node_variables(next(iter(desired.nodes))), role_digest="0" * 64)


def test_more_nodes_than_the_limit_at_once_are_left_to_a_person() -> None:
    desired, known = nodes(a=outdated("a"), b=outdated("b"))
    reason = (
        "2 nodes would change at once, more than the 1 of spec.reconcile.node_blast_limit in platform.yaml. "
        "Review the plan, then run `trueup apply --require DIGEST`."
    )
    assert held(known.plan, desired, known) == {"a": reason, "b": reason}
    alone = known.plan.only(frozenset({"a"}))
    assert held(alone, desired, known) == {"a": reason}, "the whole fleet counts"
    assert held(known.plan, desired, known, frozenset({desired.nodes_by_slug["a"].id})) == {"b": reason}
    assert restrain(known.plan, desired, known, NOBODY).digest() == known.plan.digest(), "what was reviewed is done"
    one, less = nodes(a=outdated("a"), b=Unreachable(since=NOW, reason="silent"))
    assert held(less.plan, one, less) == {}


def test_a_node_that_is_new_neither_counts_nor_waits() -> None:
    desired, known = nodes(a=outdated("a"), b=fresh("b"), c=fresh("c"))
    assert [step.action.target for step in known.plan.to_apply] == ["a", "b", "c"]
    assert held(known.plan, desired, known) == {}
    desired, known = nodes(a=outdated("a"), b=outdated("b"), c=fresh("c"))
    assert held(known.plan, desired, known).keys() == {"a", "b"}


def test_a_node_that_serves_and_has_lost_its_manifest_is_not_new() -> None:
    there = {
        "efa18075-34d4-47e5-bcfc-b101cbc5e7b9": configured(
            fleet().environment_variables(next(iter(fleet().environments)))
        )
    }
    desired, known = nodes(a=outdated("a"), b=fresh("b").model_copy(update={"environments": there}))
    assert held(known.plan, desired, known).keys() == {"a", "b"}


def test_what_failed_is_not_tried_again_as_it_is() -> None:
    desired = fleet()
    plan = plan_of(desired)
    staging = desired.environments_by_key[STAGING].id
    digest = desired.environment_variables(staging).digest()
    known = Told(plan, failed={(staging, digest): "a white page."})
    assert held(plan, desired, known) == {STAGING: "Quarantined until its document changes: a white page."}
    assert held(plan, desired, Told(plan, failed={(staging, "0" * 64): "a white page."})) == {}


def test_a_window_of_the_platform_holds_everybody() -> None:
    closed = fleet(windows=[{"kind": "deny", "cron": "* * * * *", "minutes": 1}])
    assert {step.verdict for step in plan_of(closed).steps} == {Verdict.WAITING}
