"""A revert declares content that was left: back to its backup, confirmed, or not at all."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from reconciler.core import views
from reconciler.core.actions import ConfigureEnvironment, KeptContent, ReturnContent
from reconciler.core.plan import Plan, Step, Verdict, decide
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, configured, provisioned

LEFT, NOW_THERE = (UUID(f"5a5f1f1e-7f4b-4f57-9a2b-00000000000{n}") for n in (1, 2))
RELEASE, OTHER_RELEASE = (UUID(f"5a5f1f1e-7f4b-4f57-9a2b-00000000001{n}") for n in (1, 2))
KEPT = KeptContent(UUID("5a5f1f1e-7f4b-4f57-9a2b-0000000000aa"), datetime(2026, 11, 22, 10, 30, tzinfo=UTC))
PATH = "sites/acme/environments/production.yaml"


def _plan(
    *,
    kept: KeptContent | None = KEPT,
    confirmed: bool = False,
    contents: tuple[UUID, ...] = (LEFT, NOW_THERE),
    releases: tuple[UUID, ...] = (RELEASE, OTHER_RELEASE),
    details: dict[str, dict[str, Any]] | None = None,
    spec: dict[str, Any] | None = None,
    origin: str = "restore",
) -> Plan:
    """The document declares content LEFT and RELEASE; the node has gone on to others."""
    documents = d.small()
    before = d.fleet_of(documents)
    spec = spec or {"content": {"id": str(LEFT)}, "release": {"id": str(RELEASE)}}
    documents[PATH] = {**documents[PATH], "spec": {**documents[PATH]["spec"], **spec}}
    fleet = d.fleet_of(documents)
    environment = fleet.environments_by_key["acme/production"]
    there = configured(before.environment_variables(environment.id))
    assert there.applied is not None
    applied = there.applied.model_copy(
        update={
            "contents": tuple(map(str, contents)),
            "releases": tuple(map(str, releases)),
            "release_details": details or {},
            "variables": {
                **there.applied.variables,
                "content": {**there.applied.variables["content"], "origin": origin},
            },
        }
    )
    node = provisioned(fleet.node_variables(fleet.nodes_by_slug["web-1"].id))
    node = node.model_copy(
        update={"environments": {str(environment.id): there.model_copy(update={"applied": applied})}}
    )

    def has(environment_id: UUID, content_id: UUID) -> KeptContent | None:
        return kept if (environment_id, content_id) == (environment.id, LEFT) else None

    def said(environment_id: UUID, content_id: UUID) -> bool:
        return confirmed and (environment_id, content_id) == (environment.id, LEFT)

    return decide(fleet, {"web-1": node}, ROLES, NOW, kept=has, confirmed=said)


def _step(plan: Plan) -> Step:
    (step,) = plan.steps
    return step


def test_it_waits_for_somebodys_word_and_says_what_it_would_do() -> None:
    plan = _plan()
    step = _step(plan)
    assert (type(step.action), step.verdict, step.unconfirmed) == (ReturnContent, Verdict.BLOCKED, True)
    assert plan.to_apply == ()
    for told in (views.text(plan), views.markdown(plan)):
        assert f"backup {KEPT.backup_id} of 2026-11-22 10:30:00 UTC" in told
        assert "a full backup that is taken first" in told
        assert "`trueup apply acme/production --confirm`" in told
        assert "`Trueup-Confirm: acme/production`" in told


@pytest.mark.parametrize("origin", ["search-replace", "restore"])
def test_of_a_replaced_text_it_says_how_to_take_back_that_alone(origin: str) -> None:
    """A backup has all that was there: orders since then go, for one text that is to be another."""
    for told in (views.text(_plan(origin=origin)), views.markdown(_plan(origin=origin))):
        said = "Orders and comments since then go, too" in told and "replace it the other way round" in told
        assert said == (origin == "search-replace")


def test_confirmed_it_is_applied() -> None:
    step = _step(_plan(confirmed=True))
    assert (type(step.action), step.verdict, step.reason, step.unconfirmed) == (
        ReturnContent,
        Verdict.APPLY,
        None,
        False,
    )


def test_the_digest_is_the_same_before_and_after_the_word_and_another_with_another_backup() -> None:
    other = KeptContent(UUID("5a5f1f1e-7f4b-4f57-9a2b-0000000000bb"), KEPT.taken_at)
    digests = [_plan().digest(), _plan(confirmed=True).digest(), _plan(kept=other).digest(), _plan(kept=None).digest()]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("confirmed", [False, True])
def test_without_a_backup_nothing_confirms_it(confirmed: bool) -> None:
    step = _step(_plan(kept=None, confirmed=confirmed))
    assert (type(step.action), step.verdict, step.unconfirmed) == (ConfigureEnvironment, Verdict.BLOCKED, False)
    assert f"Content {LEFT} was left for {NOW_THERE}, and no full backup has it any more" in str(step.reason)


def test_without_its_code_nothing_confirms_it() -> None:
    step = _step(_plan(confirmed=True, releases=(OTHER_RELEASE,)))
    assert (step.verdict, step.unconfirmed) == (Verdict.BLOCKED, False)
    assert f"`trueup backup restore acme/production {KEPT.backup_id}`" in str(step.reason)


def test_content_that_is_there_or_was_never_there_is_none_that_was_left() -> None:
    for contents in ((NOW_THERE, LEFT), (NOW_THERE,)):
        step = _step(_plan(contents=contents))
        assert not isinstance(step.action, ReturnContent)
        assert step.verdict is Verdict.APPLY


def test_an_update_reverted_without_its_record_would_rebuild_a_release() -> None:
    details = {str(RELEASE): {"wordpress_version": "6.5.6"}}
    spec = {"release": {"id": str(RELEASE)}, "wordpress": {"version": "7.1.1"}, "content": {"id": str(NOW_THERE)}}
    step = _step(_plan(details=details, spec=spec))
    assert step.verdict is Verdict.BLOCKED
    assert "stands on WordPress 6.5.6, and the document says 7.1.1" in str(step.reason)
    spec["wordpress"] = {"version": "6.5.6"}
    assert _step(_plan(details=details, spec=spec)).verdict is Verdict.APPLY
