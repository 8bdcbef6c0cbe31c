"""What a report says of a fleet, given what the records know."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from reconciler.core.entries import Place, Stalled
from reconciler.core.fleet import assemble
from reconciler.core.observed import AppliedBy, CertificateFailure, ObservedDomain, SshLogin, Unreachable
from reconciler.core.policy import ReconcileMode
from reconciler.core.status import DriftStatus
from reconciler.reports.causes import Login
from reconciler.reports.findings import Check
from reconciler.reports.html import html
from reconciler.reports.markdown import markdown
from reconciler.reports.model import Difference, Origin, SubjectStatus
from reconciler.reports.text import text
from tests.core import documents as d
from tests.core.fake_node import NOW
from tests.reports.fleets import COMMITTED, World, documents, of_environment, of_node

HOUR = timedelta(hours=1)


def only(differences: tuple[Difference, ...]) -> Difference:
    (one,) = differences
    return one


def with_spec(path: str, **spec: Any) -> World:
    """A world in which one document says more."""
    found = documents()
    found[path]["spec"] |= spec
    return World(d.fleet_of(found))


def deep(field: str, **more: Any) -> dict[str, Any]:
    return {
        "field": field,
        "desired": "as released",
        "observed": "modified",
        "cause": "changed on the node",
        "heals": False,
        **more,
    }


def test_a_clean_fleet() -> None:
    report = World().report()
    assert (report.status, report.is_quiet) == (DriftStatus.CLEAN, True)
    assert report.headline == "All clean: 3 environments on 2 nodes, as last seen 2026-11-22 12:00 UTC."
    assert {one.status for one in report.subjects} == {SubjectStatus.CLEAN}


def test_what_was_never_checked_is_said() -> None:
    world = World()
    world.history[world.environment().id] = []
    report = world.report()
    assert report.is_quiet
    assert report.headline.endswith("the files of 1 environment were never checked.")


def test_a_file_that_somebody_changed() -> None:
    world = World()
    path = world.break_file()
    world.touch(applied_at=NOW - 5 * HOUR)
    report = world.report()
    found = of_environment(report)
    one = only(found.differences)
    assert (one.field, one.origin, one.evidence, one.heals) == (f"file {path}", Origin.UNKNOWN, None, True)
    assert (one.since, one.well_at) == (NOW, NOW - 5 * HOUR)
    assert found.would == "The loop does it: configure."
    assert (report.status, report.counts.drifted) == (DriftStatus.DRIFTED, 1)
    assert report.headline == "3 environments on 2 nodes: 1 drifted."
    assert of_environment(report, "globex/production").status is SubjectStatus.CLEAN


def test_a_difference_keeps_the_moment_at_which_it_was_first_told() -> None:
    world = World()
    world.break_file()
    first = only(of_environment(world.report()).differences)
    again = only(of_environment(world.later(days=1).later(days=1).report()).differences)
    assert (again.since, again.well_at) == (first.since, first.well_at)


def test_a_new_difference_came_after_the_look_before() -> None:
    later = World().later(days=1)
    later.break_file()
    one = only(of_environment(later.report()).differences)
    assert (one.since, one.well_at) == (NOW + timedelta(days=1), NOW)


def test_a_report_that_knew_nothing_tells_nothing_of_when() -> None:
    world = World()
    reachable = world.answers["web-1"]
    world.answers["web-1"] = Unreachable(since=NOW, reason="timeout")
    later = world.later(days=1)
    later.answers["web-1"] = reachable
    later.touch(applied_at=NOW - 5 * HOUR)
    later.touch_node(observed_at=NOW + timedelta(days=1))
    later.break_file()
    assert only(of_environment(later.report()).differences).well_at == NOW - 5 * HOUR


def test_a_document_that_moved() -> None:
    before = World()
    world = with_spec("sites/acme/environments/production.yaml", cache={"fastcgi": False})
    world.answers = before.answers
    world.committed = {"sites/acme/environments/production.yaml": NOW + HOUR / 2}
    one = only(of_environment(world.report()).differences)
    assert (one.origin, one.since) == (Origin.DESIRED_MOVED, NOW + HOUR / 2)
    assert one.evidence == "Committed 2026-11-22 12:30 UTC; not applied yet."


def test_a_platform_that_moved_after_the_apply() -> None:
    world = World()
    world.touch(applied_digest="0", applied_variables={}, applied_at=NOW - HOUR)
    world.committed = {"platform.yaml": NOW - HOUR / 2}
    assert {one.since for one in of_environment(world.report()).differences} == {NOW - HOUR / 2}


def test_an_operator_who_ran_a_playbook() -> None:
    world = World()
    other = {**world.fleet.environment_variables(world.environment().id).model_dump(mode="json"), "files": "locked"}
    world.touch(
        applied_variables=other, applied_digest="0", applied_at=NOW - HOUR, applied_by=AppliedBy(operator="grace")
    )
    one = only(of_environment(world.report()).differences)
    assert one.origin is Origin.OPERATOR
    assert one.evidence == "grace ran a playbook by hand 2026-11-22 11:00 UTC, says the node's manifest."

    world.committed = {"sites/acme/environments/production.yaml": NOW - HOUR / 2}
    assert only(of_environment(world.report()).differences).origin is Origin.DESIRED_MOVED, "the commit came later"
    world.committed = {}
    world.touch(applied_by=AppliedBy(job=str(uuid4())))
    assert only(of_environment(world.report()).differences).origin is Origin.DESIRED_MOVED, "a job applied it"


def test_wordpress_that_updated_itself() -> None:
    world = World()
    declared = world.fleet.environment_variables(world.environment().id).wordpress_version
    minor = ".".join([*declared.split(".")[:2], "99"])
    world.touch(wordpress_version=minor)
    world.history[world.environment().id] = [Check(NOW, [deep("core wp-includes/version.php")])]
    found = of_environment(world.report())
    assert [one.origin for one in found.differences] == [Origin.WORDPRESS_UPDATE] * 2
    assert minor in str(found.differences[0].evidence)
    assert found.would == "Nothing: applying mends none of this. A person decides."


@pytest.mark.parametrize("version", ["6.0", "99.1"])
def test_another_branch_of_wordpress_is_nothing_that_it_does_by_itself(version: str) -> None:
    world = World()
    world.touch(wordpress_version=version)
    assert only(of_environment(world.report()).differences).origin is Origin.UNKNOWN


def test_a_login_between_two_checks() -> None:
    world = World()
    field = "release wp-content/plugins/akismet/akismet.php"
    id_ = world.environment().id
    world.history[id_] = [
        Check(NOW - HOUR, [deep(field)]),
        Check(NOW - 3 * HOUR, [deep(field)]),
        Check(NOW - 9 * HOUR, []),
    ]
    world.touch(applied_at=NOW - 20 * HOUR)
    world.logins[id_] = [Login(NOW - 4 * HOUR, "ada@example.com"), Login(NOW - 5 * HOUR, "bob@example.com")]
    one = only(of_environment(world.report()).differences)
    assert (one.since, one.well_at) == (NOW - 3 * HOUR, NOW - 9 * HOUR)
    assert one.origin is Origin.LOGIN
    assert one.evidence == "Magic login by ada@example.com 2026-11-22 08:00 UTC, and 1 more, says the audit log."


@pytest.mark.parametrize("hours", [10, 2])
def test_a_login_outside_of_the_window_explains_nothing(hours: int) -> None:
    world = World()
    id_ = world.environment().id
    world.history[id_] = [Check(NOW - 3 * HOUR, [deep("core index.php")]), Check(NOW - 9 * HOUR, [])]
    world.touch(applied_at=NOW - 20 * HOUR)
    world.logins[id_] = [Login(NOW - hours * HOUR, "ada@example.com")]
    assert only(of_environment(world.report()).differences).origin is Origin.UNKNOWN


def test_a_login_does_not_explain_what_wp_admin_cannot_reach() -> None:
    world = World()
    world.break_file()
    world.logins[world.environment().id] = [Login(NOW - HOUR / 2, "ada@example.com")]
    assert only(of_environment(world.report()).differences).origin is Origin.UNKNOWN


def test_somebody_who_logged_in_by_ssh() -> None:
    world = World()
    world.break_file()
    world.touch(applied_at=NOW - 5 * HOUR)
    world.ssh[world.node().id] = [
        SshLogin(at=NOW - 6 * HOUR, user="early", address="192.0.2.1"),
        SshLogin(at=NOW - 3 * HOUR, user="ada", address="192.0.2.7", key="SHA256:abc"),
        SshLogin(at=NOW - 4 * HOUR, user="bob", address="192.0.2.8"),
    ]
    one = only(of_environment(world.report()).differences)
    assert one.origin is Origin.SSH
    assert one.evidence == (
        "ada logged in by ssh from 192.0.2.7 with the key SHA256:abc 2026-11-22 09:00 UTC, and 1 more, "
        "says the node's journal."
    )
    world.ssh = {world.node("web-2").id: world.ssh[world.node().id]}
    assert only(of_environment(world.report()).differences).origin is Origin.UNKNOWN, "that was another node"


def test_a_service_that_does_not_run_on_a_node() -> None:
    world = World()
    services = world.answer("web-1").services
    stopped = {name: one.model_copy(update={"active": "failed"}) for name, one in services.items() if "nginx" in name}
    world.touch_node(services={**services, **stopped})
    found = of_node(world.report())
    one = only(found.differences)
    assert (one.field, one.observed, one.origin) == ("service nginx.service", "failed", Origin.SERVICE)
    assert found.would == "The loop does it: provision."


def test_an_unreachable_node_is_unknown_and_so_is_what_is_on_it() -> None:
    world = World()
    world.break_file()
    world.seen[world.node().id] = world.answer("web-1")
    world.answers["web-1"] = Unreachable(since=NOW - 3 * HOUR, reason="Connection refused.")
    report = world.report()
    node = of_node(report)
    assert (node.status, node.unknown_since, node.observed_at) == (SubjectStatus.UNKNOWN, NOW - 3 * HOUR, NOW)
    assert node.note == "Node web-1 does not answer: Connection refused."
    assert of_environment(report).status is SubjectStatus.UNKNOWN
    assert of_environment(report).differences == ()
    assert of_environment(report, "initech/production").status is SubjectStatus.CLEAN
    assert (report.status, report.counts.unknown) == (DriftStatus.UNKNOWN, 3)


def test_a_node_that_was_never_asked() -> None:
    world = World()
    del world.answers["web-2"]
    report = world.report()
    assert of_node(report, "web-2").note == "Node web-2 was never asked."
    assert of_environment(report, "initech/production").status is SubjectStatus.UNKNOWN


def test_a_decommissioned_node_is_no_drift() -> None:
    world = with_spec("nodes/web-2.yaml", state="decommissioned")
    world.touch_node("web-2", files={})
    report = world.report()
    assert (of_node(report, "web-2").status, of_node(report, "web-2").note) == (SubjectStatus.CLEAN, "Decommissioned.")
    assert of_environment(report, "initech/production").note == "Node web-2 is decommissioned."
    assert of_environment(report, "initech/production").status is SubjectStatus.UNKNOWN


def test_paused_by_its_document_until_a_moment() -> None:
    until = NOW + timedelta(days=1)
    paused = {"mode": "paused", "reason": "the shop's sale", "until": until.isoformat()}
    world = with_spec("sites/acme/environments/production.yaml", reconcile=paused)
    report = world.report()
    found = of_environment(report)
    assert found.paused == "the shop's sale (until 2026-11-23 12:00 UTC)"
    assert found.mode is ReconcileMode.PAUSED
    assert (report.status, report.is_quiet, report.counts.paused) == (DriftStatus.CLEAN, False, 1)
    world.break_file()
    assert of_environment(world.report()).would == "Nothing while it is paused: the shop's sale"
    world.now = until
    assert of_environment(world.report()).paused is None
    assert of_environment(world.report()).mode is ReconcileMode.ENFORCE


def test_a_hold_pauses_a_node_and_all_on_it() -> None:
    world = World()
    world.touch_node(hold="disk is being exchanged")
    report = world.report()
    told = "The node is on hold: disk is being exchanged"
    assert [of_node(report).paused, of_environment(report).paused] == [told, told]
    assert of_node(report, "web-2").paused is None


@pytest.mark.parametrize(
    ("reconcile", "said"),
    [
        (
            {"mode": "report", "reason": "we look first"},
            "Nothing by itself: we look first `trueup apply acme/production` would configure it.",
        ),
        (
            {"windows": [{"kind": "allow", "cron": "0 2 * * *", "minutes": 60}]},
            "Not now. Waits for the window `0 2 * * *` (60 minutes, UTC). After that the loop does it: configure.",
        ),
    ],
    ids=["report", "waiting"],
)
def test_what_a_reconcile_would_do(reconcile: dict[str, Any], said: str) -> None:
    world = with_spec("sites/acme/environments/production.yaml", reconcile=reconcile)
    world.break_file()
    report = world.report()
    assert of_environment(report).would == said
    is_held = "windows" in reconcile
    assert (of_environment(report).waits is not None, report.counts.waiting) == (is_held, int(is_held))
    assert ("1 waiting" in report.headline) is is_held


def test_what_a_reconcile_mends_only_in_part() -> None:
    world = World()
    world.break_file()
    world.touch(database=False)
    assert of_environment(world.report()).would == "The loop does it: configure. That mends 1 of 2 differences."


def test_what_is_blocked_says_why() -> None:
    world = World()
    id_ = str(world.environment().id)
    node = world.answer("web-1")
    moved = {**node.environments}
    there = moved.pop(id_)
    world.touch_node(environments=moved)
    world.touch_node("web-2", environments={**world.answer("web-2").environments, id_: there})
    found = of_environment(world.report())
    assert only(found.differences).origin is Origin.MISSING
    assert str(found.would).startswith("Nothing, it is blocked: acme/production is on node web-2.")


def test_a_stalled_document() -> None:
    broken = Stalled("sites/acme/environments/production.yaml", Place(7), "spec.php: no such field")
    fleet = World().fleet
    entries = [*fleet.nodes.values(), *fleet.sites.values(), *fleet.environments.values()]
    world = World(assemble("1" * 40, [one for one in entries if one.path != broken.path] + [broken]))
    report = world.report()
    (stalled,) = report.stalled
    assert (stalled.path, stalled.line, stalled.message, stalled.since) == (
        broken.path,
        7,
        broken.message,
        COMMITTED,
    )
    assert (report.status, report.counts.stalled) == (DriftStatus.UNKNOWN, 1)
    assert report.headline.endswith("1 stalled document.")


def test_an_orphan_is_told() -> None:
    world = World()
    orphan = str(uuid4())
    world.touch_node(
        environments={
            **world.answer("web-1").environments,
            orphan: next(iter(world.answer("web-1").environments.values())),
        }
    )
    report = world.report()
    assert [(one.node, one.environment_id) for one in report.orphans] == [("web-1", orphan)]
    assert (report.status, report.is_quiet) == (DriftStatus.CLEAN, False)


def test_what_rules_ignore_is_counted_and_conflicts_are_not_ignored() -> None:
    world = World()
    summary = deep(
        "content",
        compared_with=str(uuid4()),
        counts={"options": {"moves": 3, "stays": 2, "conflicts": 1}, "files": {"moves": 1, "stays": 0, "conflicts": 0}},
        protected={"wp_posts": {"source": 4, "target": 50}},
    )
    named = [
        deep("content options: blogname", content="conflicts", cause="changed in both"),
        deep("content options: moved", content="moves", cause="changed in this environment"),
    ]
    world.history[world.environment().id] = [Check(NOW, [summary, *named])]
    report = world.report()
    assert report.ignored.model_dump() == {"moved": 4, "stayed": 2, "protected": 54}
    one = only(of_environment(report).differences)
    assert (one.field, one.origin) == ("content options: blogname", Origin.CONTENT)


def test_a_certificate_that_was_refused_is_told_and_no_drift() -> None:
    world = with_spec("sites/acme/environments/production.yaml", domains=[{"hostname": "shop.example.com"}])
    failure = CertificateFailure(code="DNS_ELSEWHERE", message="It leads elsewhere.", at=NOW, count=1)
    world.touch(domains={"shop.example.com": ObservedDomain(failure=failure)})
    report = world.report()
    found = of_environment(report)
    assert (found.status, found.differences) == (SubjectStatus.CLEAN, ())
    assert "shop.example.com" in found.notices[0]
    assert not report.is_quiet
    assert report.headline.endswith("1 certificate to look at.")


def test_only_so_many_differences_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.reports.composing.NAMED_IN_ALL", 105)
    world = World()
    for key in ("acme/production", "globex/production"):
        world.history[world.environment(key).id] = [Check(NOW, [deep(f"core {number}.php") for number in range(103)])]
    report = world.report()
    assert [len(one.differences) for one in report.environments] == [100, 5, 0]
    assert [one.more_differences for one in report.environments] == [3, 98, 0]
    assert report.counts.drifted == 2


def test_what_others_wrote_is_printable_and_on_one_line() -> None:
    world = World()
    world.touch_node(hold="\x1b[31mred\nsecond\u202eline" + "x" * 9999)
    paused = str(of_node(world.report()).paused)
    assert paused.startswith("The node is on hold: �[31mred second�line")
    assert len(paused) == 500


def test_a_field_that_somebody_holds_is_told_with_who_and_why() -> None:
    hold = {"field": "options.blogname", "reason": "Campaign", "owner": "Ada", "until": "2027-01-01T00:00:00Z"}
    world = with_spec(
        "sites/acme/environments/production.yaml", options={"blogname": "Acme"}, reconcile={"holds": [hold]}
    )
    world.logins[world.environment().id] = [Login(NOW - HOUR, "admin@example.com")]
    world.touch(options={"blogname": "Spike"}, applied_at=NOW - 5 * HOUR)
    report = world.report()
    found = of_environment(report)
    told = "held by Ada until 2027-01-01T00:00:00Z: Campaign"
    one = only(found.differences)
    assert (one.field, one.desired, one.observed, one.held) == ("options.blogname", "Acme", "Spike", told)
    assert (one.origin, one.heals) == (Origin.LOGIN, True)
    assert found.would == (
        f"Nothing by itself: options.blogname is {told}. `trueup apply acme/production` would configure it."
    )
    assert report.counts.drifted == 1
    for shape in (text, markdown, html):
        assert re.search(r"[^.]; held by Ada until 2027-01-01T00:00:00Z", shape(report))
    after = with_spec("sites/acme/environments/production.yaml", options={"blogname": "Acme"})
    after.touch(options={"blogname": "Spike"}, applied_at=NOW - 5 * HOUR)
    after.previous = report
    assert [change.kind for change in after.report().changes] == ["changed"], "a hold that went is news"

    world.break_file()
    found = of_environment(world.report())
    assert found.would == "The loop does it: configure. That mends 1 of 2 differences."
