"""Reports are made, kept and sent: once to each target, when something changed, and never twice."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from reconciler.core.status import DriftStatus
from reconciler.loop import delivering, sending
from reconciler.loop.delivering import ATTEMPTS, deliver, waiting, work_there_is
from reconciler.loop.reporting import make_report
from reconciler.records.audit import Entry
from reconciler.records.drift import DriftCheck
from reconciler.reports.model import Origin, ReportTrigger
from tests.controlplane import closed_port
from tests.proof import sampled
from tests.reports.desk import NOW, Desk
from tests.reports.receivers import HANG_UP, Hook, dripping, silent

FIRST = "This is the first report that is sent here."


def webhook(hook: Hook, **more: Any) -> dict[str, Any]:
    return {"targets": [{"type": "webhook", "url": hook.url, **more}]}


def test_a_report_has_its_jobs_id_and_who_asked(desk: Desk) -> None:
    id_ = desk.ask()
    report = desk.report(id_)
    assert (report.id, report.trigger, report.requested_by) == (id_, ReportTrigger.REQUEST, "ops@example.com")
    assert (report.status, report.is_quiet, report.created_at) == (DriftStatus.CLEAN, True, NOW)
    assert desk.deliveries(id_) == {}, "nobody is to be sent it"


def test_what_records_know_is_in_it(desk: Desk) -> None:
    """A drift check found a file, and the audit log has a login before it."""
    environment = desk.tools.state.fleet().environments_by_key["acme/production"].id
    file = {"field": "core index.php", "desired": "as released", "observed": "modified"}
    found = {**file, "cause": "changed on the node", "heals": False}
    checks, moment = desk.control.records.drift_checks, NOW + timedelta(hours=3)
    for hours, differences in ((1, ()), (3, (found,))):
        check = DriftCheck(
            id=uuid4(),
            environment_id=environment,
            status="drifted" if differences else "clean",
            differences=differences,
            created_at=NOW + timedelta(hours=hours),
        )
        checks.save(check)
    login = Entry(
        who="ada@example.com",
        source="",
        operation="magic-login",
        outcome="done",
        environment_id=environment,
        summary={},
    )
    desk.control.records.audit.append(login, NOW + timedelta(hours=2))
    desk.pass_time(hours=4)
    (told,) = [one for one in desk.report(desk.ask()).environments if one.differences]
    (one,) = told.differences
    assert (one.since, one.well_at, one.origin) == (moment, NOW + timedelta(hours=1), Origin.LOGIN)
    assert "ada@example.com" in str(one.evidence)
    assert told.checked_at == moment


def test_sent_first_and_then_only_when_something_changed(desk: Desk, hook: Hook) -> None:
    desk.declare(webhook(hook))
    first = desk.ask()
    desk.deliver()
    assert [request.data["report"]["id"] for request in hook.requests] == [str(first)]
    assert FIRST in hook.requests[0].data["text"]

    desk.pass_time(days=1)
    assert desk.deliveries(desk.ask()) == {}, "nothing changed"

    desk.pass_time(days=1)
    desk.observe(broken="f" * 64)
    third = desk.ask()
    desk.deliver()
    body = hook.requests[1].data
    assert (body["report"]["id"], body["report"]["status"]) == (str(third), "drifted")
    assert [(one["kind"], one["subject"]) for one in body["changes"]] == [("new", "web-1")]
    assert (body["trigger"], body["requested_by"]) == ("request", "ops@example.com")
    assert FIRST not in body["text"]

    desk.pass_time(days=1)
    desk.ask()
    desk.deliver()
    assert [one["kind"] for one in hook.requests[2].data["changes"]] == ["gone"]
    desk.deliver()
    assert len(hook.requests) == 3


def test_signed_with_a_secret_of_the_store(desk: Desk, hook: Hook) -> None:
    desk.secrets.put("hook", {"key": "correct horse"})
    desk.declare(webhook(hook, secret="hook"))
    desk.ask()
    desk.deliver()
    (request,) = hook.requests
    expected = hmac.new(b"correct horse", request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-trueup-signature-256"] == f"sha256={expected}"
    assert request.headers["x-trueup-delivery"] == request.data["delivery"]
    assert request.path == "/hook/s3cret?token=1"


def test_the_address_itself_may_be_the_secret(desk: Desk, hook: Hook) -> None:
    desk.secrets.put("chat", {"url": hook.url})
    desk.declare({"targets": [{"type": "webhook", "secret": "chat"}]})
    id_ = desk.ask()
    desk.deliver()
    assert len(hook.requests) == 1
    assert "x-trueup-signature-256" not in hook.requests[0].headers
    assert desk.only(id_).name == "webhook of secret chat"


def test_a_secret_that_is_missing_sends_nothing(desk: Desk, hook: Hook) -> None:
    desk.declare(webhook(hook, secret="hook"))
    id_ = desk.ask()
    desk.deliver()
    assert (hook.requests, desk.only(id_).status) == ([], "pending")
    assert "There is no secret hook" in str(desk.only(id_).error)
    desk.secrets.put("hook", {"password": "not a key"})
    desk.pass_time(minutes=1)
    desk.deliver()
    assert "has no `key` to sign with" in str(desk.only(id_).error)
    assert hook.requests == [], "never unsigned, where a signature is declared"
    desk.secrets.put("hook", {"key": "k"})
    desk.pass_time(minutes=2)
    desk.deliver()
    assert (len(hook.requests), desk.only(id_).status) == (1, "sent")


@pytest.mark.parametrize("answer", sampled([500, 503, 429, 404, 302]))
def test_a_refusal_is_tried_again_with_the_same_key(desk: Desk, hook: Hook, answer: int) -> None:
    desk.declare(webhook(hook))
    hook.answers = [answer]
    id_ = desk.ask()
    desk.deliver()
    waiting_ = desk.only(id_)
    assert (waiting_.status, waiting_.attempts, waiting_.error) == ("pending", 1, f"It answers {answer}.")
    desk.deliver()
    assert len(hook.requests) == 1, "not before its time"
    desk.pass_time(seconds=30)
    desk.deliver()
    assert desk.only(id_).status == "sent"
    first, second = hook.requests
    assert first.body == second.body
    assert first.headers["x-trueup-delivery"] == second.headers["x-trueup-delivery"]


def test_a_target_that_never_takes_it_fails_and_hears_all_of_it_later(desk: Desk, hook: Hook) -> None:
    desk.declare(webhook(hook))
    desk.ask()
    desk.deliver()
    desk.observe(broken="f" * 64)
    hook.answers = [500] * ATTEMPTS
    id_ = desk.ask()
    for attempt in range(1, ATTEMPTS + 1):
        assert desk.only(id_).status == "pending"
        desk.deliver()
        desk.control.clock.ahead += waiting(attempt)
    failed = desk.only(id_)
    assert (failed.status, failed.attempts, failed.error) == ("failed", ATTEMPTS, "It answers 500.")
    desk.deliver()
    assert len(hook.requests) == 1 + ATTEMPTS

    desk.ask()
    desk.deliver()
    assert [one["kind"] for one in hook.requests[-1].data["changes"]] == ["new"], "it has not heard of that"


def test_waiting_grows_and_has_an_end() -> None:
    waits = [waiting(attempt).total_seconds() for attempt in range(1, ATTEMPTS + 3)]
    assert waits[:3] == [30, 60, 120]
    assert waits == sorted(waits)
    assert waits[-1] == 3600


def test_nobody_listens(desk: Desk) -> None:
    desk.declare(webhook(Hook(f"http://127.0.0.1:{closed_port()}/")))
    id_ = desk.ask()
    desk.deliver()
    assert desk.only(id_).status == "pending"
    assert desk.only(id_).error == "It cannot be reached: Connection refused."


@pytest.mark.parametrize("answer", sampled([HANG_UP, 502, 504]))
def test_what_may_have_arrived_is_never_sent_again(desk: Desk, hook: Hook, answer: int) -> None:
    desk.declare(webhook(hook))
    hook.answers = [answer]
    id_ = desk.ask()
    desk.deliver()
    assert desk.only(id_).status == "uncertain"
    assert "It may have arrived, so it is not sent again." in str(desk.only(id_).error)
    desk.pass_time(days=1)
    desk.deliver()
    assert len(hook.requests) == 1
    assert desk.deliveries(desk.ask()) == {}, "it counts as heard"


def test_a_receiver_that_drips_is_cut_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte every now and then would keep a timeout from ever coming."""
    monkeypatch.setattr(sending, "LONGEST_S", 3.0)
    stop = threading.Event()
    with dripping(stop) as port:
        desk.declare({"targets": [{"type": "webhook", "url": f"http://127.0.0.1:{port}/"}]})
        id_ = desk.ask()
        desk.deliver()
        stop.set()  # only now: it dripped until it was cut off
    assert desk.only(id_).status == "uncertain"


@pytest.mark.parametrize("port", sampled(["99999", "1:2"]))
def test_an_address_that_is_none_is_told_and_no_obstacle_to_others(desk: Desk, hook: Hook, port: str) -> None:
    bad = {"type": "webhook", "url": f"http://127.0.0.1:{port}/s3cret"}
    desk.declare({"targets": [bad, *webhook(hook)["targets"]]})
    id_ = desk.ask()
    desk.deliver()
    told = desk.deliveries(id_)
    assert sorted(one.status for one in told.values()) == ["pending", "sent"]
    [error] = [str(one.error) for one in told.values() if one.error]
    assert error.startswith("Its address is none: ")
    assert "s3cret" not in error


def test_many_processes_send_it_once(desk: Desk, hook: Hook) -> None:
    desk.declare(webhook(hook))
    desk.ask()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: deliver(desk.tools, threading.Event()), range(6)))
    assert len(hook.requests) == 1


def test_a_process_that_is_killed_while_it_sends_sends_it_no_second_time(desk: Desk) -> None:
    """SIGKILL after the request has left, before the answer: the next process leaves it alone."""
    with silent() as (port, arrived):
        desk.declare({"targets": [{"type": "webhook", "url": f"http://127.0.0.1:{port}/"}]})
        id_ = desk.ask()
        process = subprocess.Popen([sys.executable, "-m", "tests.reports.courier_process", str(desk.control.home)])
        try:
            assert arrived.wait(300), "nothing arrived"
            assert desk.only(id_).status == "sending"
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(120)
        assert not work_there_is(desk.control.records, desk.control.clock(), uuid4)
        assert desk.only(id_).status == "uncertain"
        assert "The process that was sending it ended" in str(desk.only(id_).error)
        arrived.clear()
        desk.pass_time(days=1)
        desk.deliver()
        assert not arrived.is_set()


def test_what_waits_gives_way_to_what_is_newer(desk: Desk, hook: Hook) -> None:
    desk.declare(webhook(hook))
    desk.ask()
    desk.deliver()
    desk.pass_time(minutes=5)
    desk.observe(broken="e" * 64)
    hook.answers = [500]
    waited = desk.ask()
    desk.deliver()
    desk.pass_time(minutes=5)
    desk.observe(broken="f" * 64)
    newer = desk.ask()
    assert desk.only(waited).status == "superseded"
    desk.deliver()
    (change,) = hook.requests[-1].data["changes"]
    assert (change["kind"], "ffffffffffff" in change["text"]) == ("new", True), "since what it heard, not what waited"

    desk.pass_time(minutes=5)
    hook.answers = [500]
    waited = desk.ask()
    desk.deliver()
    desk.pass_time(minutes=5)
    desk.observe(broken="f" * 64)
    assert desk.deliveries(desk.ask()) == {}, "as it was when it last heard"
    assert (desk.only(waited).status, desk.only(newer).status) == ("superseded", "sent")


def test_a_target_that_is_declared_no_longer_is_sent_nothing(desk: Desk, hook: Hook) -> None:
    desk.declare(webhook(hook))
    id_ = desk.ask()
    desk.declare(None)
    desk.deliver()
    assert (hook.requests, desk.only(id_).error) == ([], "The platform document names it no longer.")


def test_a_job_that_is_repeated_makes_and_sends_no_second_report(desk: Desk, hook: Hook) -> None:
    desk.declare(webhook(hook))
    id_ = desk.ask()
    made = desk.report(id_)
    desk.pass_time(minutes=5)
    make_report(desk.control.records.jobs.get(id_), desk.tools)
    assert desk.report(id_) == made
    assert len(desk.deliveries(id_)) == 1


def test_by_the_clock_once_a_day(desk: Desk) -> None:
    reports = desk.control.records.reports
    desk.declare({})
    committed = desk.tools.state.current().history("platform.yaml")
    assert committed is not None
    desk.control.clock.stopped_at = committed.updated_at
    desk.control.clock.ahead = timedelta()
    desk.schedule.report_tick()
    assert not desk.worker.work_once(), "it is not due yet"
    six = committed.updated_at.replace(hour=6, minute=0, second=0, microsecond=0)
    if six <= committed.updated_at:
        six += timedelta(days=1)
    for moment, made in ((six, 1), (six + timedelta(hours=23), 1), (six + timedelta(days=1, seconds=40), 2)):
        desk.control.clock.stopped_at = moment
        for _ in range(3):
            desk.schedule.report_tick()
        while desk.worker.work_once():
            pass
        desk.schedule.report_tick()
        assert len(reports.heads(10)) == made, moment
    assert {head["trigger"] for head in reports.heads(10)} == {"schedule"}
    # Days on which the control plane was down are made up for once.
    desk.control.clock.stopped_at = six + timedelta(days=9)
    desk.schedule.report_tick()
    desk.schedule.report_tick()
    while desk.worker.work_once():
        pass
    assert len(reports.heads(10)) == 3


def test_not_by_the_clock_where_that_is_declared(desk: Desk) -> None:
    desk.declare({"schedule": None})
    desk.pass_time(days=400)
    desk.schedule.report_tick()
    assert not desk.worker.work_once()


def test_a_tick_has_due_deliveries_sent(desk: Desk, hook: Hook) -> None:
    desk.declare(webhook(hook))
    desk.ask()
    desk.schedule.delivery_tick()
    desk.schedule.delivery_tick()
    assert desk.worker.work_once()
    assert not desk.worker.work_once(), "one job for all"
    assert len(hook.requests) == 1
    desk.schedule.delivery_tick()
    assert not desk.worker.work_once()


def test_a_claim_lasts_longer_than_an_attempt() -> None:
    assert delivering.CLAIM.total_seconds() > 3 * sending.LONGEST_S
    assert sending.LONGEST_S > sending.SILENCE_S
