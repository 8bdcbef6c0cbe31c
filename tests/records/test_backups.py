"""Which backups go when their time is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from reconciler.records.backups import Backup, Backups
from tests.records.examples import NOON

DAY = timedelta(days=1)
SITE = uuid4()


def made(days_ago: int, scope: str = "full", drill: str | None = None, status: str = "completed") -> Backup:
    """One of which the time is over."""
    at = NOON - days_ago * DAY
    return Backup(
        id=UUID(int=days_ago),
        environment_id=SITE,
        backup_scope=scope,
        status=status,
        retention_until=NOON - DAY,
        created_at=at,
        completed_at=at if status == "completed" else None,
        drilled_at=at if drill else None,
        drill_status=drill,
    )


@pytest.mark.parametrize(
    ("kept", "over"),
    [
        ([made(40)], set()),
        ([made(40), made(41), made(42)], {41, 42}),
        ([made(40, status="failed"), made(41)], set()),
        ([made(40, status="expired"), made(41)], set()),
        # One that is known to be bad is in nobody's place, and goes where there is a good one.
        ([made(40, drill="failed"), made(41)], {40}),
        ([made(40, drill="failed"), made(41, drill="passed"), made(42)], {40, 42}),
        ([made(40, drill="failed"), made(41, drill="failed")], {41}),
        # A part is no whole; a whole is all of its parts.
        ([made(40, "db"), made(41)], set()),
        ([made(40), made(41, "db"), made(42, "files")], {41, 42}),
        ([made(40, "files"), made(41, "db"), made(42, "db")], {42}),
    ],
)
def test_the_newest_good_one_stays(engine: Engine, kept: list[Backup], over: set[int]) -> None:
    records = Backups(engine)
    for one in kept:
        records.save(one)
    assert {one.id.int for one in records.over(NOON, {SITE})} == over
    assert {one.id for one in records.over(NOON, ())} == {one.id for one in kept if one.status == "completed"}


def test_what_a_clock_wrote_that_was_ahead_takes_no_other_s_place(engine: Engine) -> None:
    """It may be older than any other, and what is removed for it is gone."""
    records = Backups(engine)
    for one in (made(40), replace(made(41), completed_at=NOON + 90 * DAY, retention_until=NOON + 120 * DAY)):
        records.save(one)
    assert records.over(NOON, {SITE}) == []


def test_what_is_not_over_stays_and_takes_the_place_of_others(engine: Engine) -> None:
    records = Backups(engine)
    records.save(made(40))
    records.save(replace(made(1), retention_until=NOON + DAY))
    assert [one.id.int for one in records.over(NOON, {SITE})] == [40]
