"""What the forge is to be told of each commit, and what of it the forge has taken."""

from __future__ import annotations

from sqlalchemy import Engine

from reconciler.core.announcing import CommitState, Kind, Result, Target, Told, held
from reconciler.records.announcements import NO_REQUEST, Announcements
from tests.records.examples import NOON, after

ONE, TWO = "a" * 40, "b" * 40
TARGET = Target(kind=Kind.NODE, id="web-1", name="web-1", digest="d")
APPLIED = Told(
    state=CommitState.SUCCESS,
    description="Applied: 1 node.",
    results=(Result(name="web-1", state=CommitState.SUCCESS, reason="Applied."),),
)
HELD = held("unsigned", "One is not signed.")


def test_what_is_kept_comes_back(engine: Engine) -> None:
    announcements = Announcements(engine)
    announcements.take([ONE, TWO], NOON)
    announcements.change(ONE, targets=(TARGET,), told=APPLIED, sent=APPLIED, request=NO_REQUEST, attempts=2, error="x")
    one, two = announcements.open()
    assert (one.commit, one.targets, one.told, one.sent, one.held) == (ONE, (TARGET,), APPLIED, APPLIED, None)
    assert (one.request, one.attempts, one.error, one.next_attempt_at) == (NO_REQUEST, 2, "x", NOON)
    assert (two.targets, two.told, two.sent, two.request, two.is_open) == (None, None, None, None, True)
    announcements.change(ONE, is_open=False)
    assert [row.commit for row in announcements.open()] == [TWO]


def test_taken_again_nothing_is_forgotten(engine: Engine) -> None:
    announcements = Announcements(engine)
    announcements.take([ONE], NOON)
    announcements.change(ONE, told=APPLIED, sent=APPLIED)
    announcements.take([ONE], after(hours=1))
    (row,) = announcements.latest()
    assert (row.taken_at, row.sent) == (NOON, APPLIED)


def test_held_and_then_taken_over(engine: Engine) -> None:
    announcements = Announcements(engine)
    announcements.hold(ONE, HELD, NOON)
    announcements.change(ONE, told=HELD, sent=HELD, is_open=False)
    announcements.hold(ONE, HELD, after(hours=1))
    assert announcements.open() == [], "saying so again changes nothing"
    announcements.take([ONE], after(hours=2))
    (row,) = announcements.open()
    assert (row.held, row.told, row.sent, row.taken_at) == (None, None, HELD, after(hours=2))


def test_released(engine: Engine) -> None:
    announcements = Announcements(engine)
    announcements.take([ONE], NOON)
    announcements.change(ONE, told=APPLIED, sent=APPLIED, is_open=False)
    announcements.hold(ONE, HELD, after(hours=1))
    (row,) = announcements.open()
    assert (row.held, row.told) == (HELD, APPLIED)
    announcements.release()
    (row,) = announcements.open()
    assert (row.held, row.sent) == (None, APPLIED)


def test_pruned(engine: Engine) -> None:
    announcements = Announcements(engine)
    announcements.take([ONE], NOON)
    announcements.take([TWO], after(hours=1))
    assert announcements.prune(after(hours=1)) == 1
    assert [row.commit for row in announcements.latest()] == [TWO]
