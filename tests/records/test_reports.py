"""Drift reports and their outbox, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from reconciler.core.errors import NotFound
from reconciler.core.observed import SshLogin
from reconciler.records.audit import Audit, Entry
from reconciler.records.deliveries import VANISHED, Deliveries, Delivery
from reconciler.records.node_logins import NodeLogins
from reconciler.records.reports import KEPT, DriftReports, NewDelivery, StoredReport
from tests.records.examples import NOON, after

LIFE = timedelta(minutes=5)
DAY = 86_400.0


def report(seconds: float = 0, trigger: str = "schedule") -> StoredReport:
    id_ = uuid4()
    data = {"id": str(id_), "headline": f"at {seconds}"}
    return StoredReport(id=id_, created_at=after(seconds=seconds), trigger=trigger, head=data, report=data)


def delivery(key: str, target: str = "t" * 64) -> NewDelivery:
    return NewDelivery(key=key, target=target, name=f"webhook {target[:1]}", changes=[{"text": key}], is_first=False)


@pytest.fixture
def reports(engine: Engine) -> DriftReports:
    return DriftReports(engine)


@pytest.fixture
def outbox(engine: Engine) -> Deliveries:
    return Deliveries(engine)


def only(outbox: Deliveries, report_id: UUID) -> Delivery:
    (one,) = outbox.of(report_id)
    return one


def test_a_report_is_kept_once(reports: DriftReports, outbox: Deliveries) -> None:
    one = report()
    assert reports.save(one, [delivery("a")], [])
    assert reports.save(one, [delivery("b")], []), "a job that is repeated makes no second one"
    assert reports.get(one.id) == one
    assert [delivery.key for delivery in outbox.of(one.id)] == ["a"]
    assert reports.has(one.id)
    with pytest.raises(NotFound, match="No drift report"):
        reports.get(uuid4())


def test_newest_first(reports: DriftReports) -> None:
    assert reports.latest() is None
    assert reports.last_scheduled(after(seconds=9)) is None
    made = [report(seconds, "request" if seconds == 3 else "schedule") for seconds in (2, 1, 3)]
    for one in made:
        reports.save(one, [], [])
    assert reports.latest() == made[2]
    assert reports.last_scheduled(after(seconds=9)) == after(seconds=2)
    assert reports.last_scheduled(after(seconds=1)) == after(seconds=1), "a clock was ahead"
    assert [head["headline"] for head in reports.heads(2)] == ["at 3", "at 2"]


def test_a_delivery_is_claimed_by_one(reports: DriftReports, outbox: Deliveries) -> None:
    reports.save(report(), [delivery("a")], [])
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda n: outbox.claim("a", f"process {n}", NOON, LIFE), range(16)))
    assert taken.count(True) == 1


def test_what_did_not_arrive_is_tried_again_later(reports: DriftReports, outbox: Deliveries) -> None:
    one = report()
    reports.save(one, [delivery("a")], [])
    assert [waiting.key for waiting in outbox.due(NOON)] == ["a"]
    assert outbox.claim("a", "p", NOON, LIFE)
    assert outbox.due(NOON) == []
    assert outbox.again("a", "p", after(seconds=30), "refused")
    assert not outbox.claim("a", "p", after(seconds=29), LIFE)
    assert [(waiting.attempts, waiting.error) for waiting in outbox.due(after(seconds=30))] == [(1, "refused")]
    assert outbox.claim("a", "p", after(seconds=30), LIFE)
    assert outbox.end("a", "p", "sent", after(seconds=31), None)
    ended = only(outbox, one.id)
    assert (ended.status, ended.attempts, ended.ended_at, ended.error) == ("sent", 2, after(seconds=31), None)
    assert not outbox.claim("a", "p", after(seconds=99), LIFE)


@pytest.mark.parametrize("way", ["dead", "late"])
def test_what_a_vanished_process_was_sending_is_never_sent_again(
    reports: DriftReports, outbox: Deliveries, way: str
) -> None:
    one = report()
    reports.save(one, [delivery("a"), delivery("b", "u" * 64)], [])
    assert outbox.claim("a", "gone", NOON, LIFE)
    assert outbox.claim("b", "alive", after(seconds=200), LIFE)
    moment = NOON + LIFE if way == "late" else after(seconds=200)
    assert outbox.expire(moment, lambda holder: way == "dead" and holder == "gone") == ["webhook t"]
    lost, sending = outbox.of(one.id)
    assert (lost.status, lost.error, sending.status) == ("uncertain", VANISHED, "sending")
    assert not outbox.claim("a", "another", after(seconds=DAY), LIFE)
    assert not outbox.end("a", "gone", "sent", after(seconds=DAY), None), "it comes back too late"
    assert not outbox.again("a", "gone", after(seconds=DAY), "refused")


def test_what_waits_gives_way_to_a_newer_report_unless_it_is_taken_up(
    reports: DriftReports, outbox: Deliveries
) -> None:
    first, second, third = report(0), report(1), report(2)
    reports.save(first, [delivery("a")], [])
    assert reports.save(second, [delivery("b")], ["a"])
    assert only(outbox, first.id).status == "superseded"
    assert not outbox.claim("a", "p", after(seconds=9), LIFE)
    assert outbox.claim("b", "p", after(seconds=9), LIFE)
    assert not reports.save(third, [delivery("c")], ["b"])
    assert not reports.has(third.id), "nothing of it is kept"


def test_what_a_target_may_have_heard(reports: DriftReports, outbox: Deliveries) -> None:
    made = [report(seconds) for seconds in range(4)]
    for number, one in enumerate(made):
        reports.save(one, [delivery(str(number))], [])
    assert outbox.heard() == {}
    assert len(outbox.pending()) == 4
    for key, status in (("0", "sent"), ("1", "uncertain"), ("2", "failed")):
        outbox.claim(key, "p", after(seconds=9), LIFE)
        outbox.end(key, "p", status, after(seconds=9), None)  # type: ignore[arg-type]
    assert [one.report_id for one in outbox.heard().values()] == [made[1].id]
    assert [one.status for one in outbox.latest().values()] == ["pending"]
    outbox.claim("3", "p", after(seconds=9), LIFE)
    assert [one.report_id for one in outbox.heard().values()] == [made[3].id], "it is being sent"


def test_reports_go_but_never_what_is_needed(reports: DriftReports, outbox: Deliveries) -> None:
    old = [report(seconds) for seconds in range(5)]
    for number, one in enumerate(old):
        reports.save(one, [delivery(str(number))] if number < 3 else [], [])
    for key in ("0", "1"):
        outbox.claim(key, "p", after(seconds=9), LIFE)
        outbox.end(key, "p", "sent", after(seconds=9), None)
    assert reports.prune(after(seconds=DAY)) == 2
    left = [reports.has(one.id) for one in old]
    assert left == [False, True, True, False, True], "sent last; still to be sent; newest of all"
    assert outbox.of(old[0].id) == []


def test_only_so_many_reports_are_kept(reports: DriftReports) -> None:
    for seconds in range(KEPT + 3):
        reports.save(report(seconds), [], [])
    assert reports.prune(NOON - timedelta(days=1)) == 3
    assert len(reports.heads(KEPT + 3)) == KEPT


def test_who_logged_in_where(engine: Engine) -> None:
    audit, environment = Audit(engine), uuid4()
    for seconds, operation, outcome in ((0, "magic-login", "done"), (5, "magic-login", "done"), (6, "login", "done")):
        entry = Entry(
            who=f"{seconds}", source="", operation=operation, outcome=outcome, environment_id=environment, summary={}
        )
        audit.append(entry, after(seconds=seconds))
    refused = Entry(
        who="x", source="", operation="magic-login", outcome="node_unreachable", environment_id=environment, summary={}
    )
    audit.append(refused, after(seconds=7))
    assert audit.logins_since(after(seconds=1)) == {environment: [(after(seconds=5), "5")]}


def test_a_login_on_a_node_that_two_looks_tell_of_is_kept_once(engine: Engine) -> None:
    logins, node = NodeLogins(engine), uuid4()
    first, second = (
        SshLogin(at=after(seconds=seconds), user="ada", address="192.0.2.7", key="SHA256:abc") for seconds in (1, 5)
    )
    logins.save(node, [first])
    logins.save(node, [first, second, second])
    assert logins.since(after(seconds=0)) == {node: [first, second]}
    assert logins.prune(after(seconds=2)) == 1
    assert logins.since(after(seconds=0)) == {node: [second]}
