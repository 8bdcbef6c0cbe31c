"""Cron expressions mean what they mean in a crontab."""

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.core.cron import checked, last_due, next_due

SUNDAY = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ("*", "0123456"),
        ("0", "0"),
        ("7", "0"),
        ("sun", "0"),
        ("1-5", "12345"),
        ("MON-FRI", "12345"),
        ("5-7", "056"),
        ("sun,fri-sat", "056"),
        ("0,6", "06"),
        ("1-5/2", "135"),
    ],
)
def test_days_of_the_week(days: str, expected: str) -> None:
    due, moment = "", SUNDAY
    while (moment := next_due(f"0 12 * * {days}", moment) or SUNDAY) < SUNDAY + timedelta(days=7):
        due += str((moment - SUNDAY).days)
    assert due == expected


def test_a_day_of_the_month_or_one_of_the_week() -> None:
    """Where both are restricted, either is enough."""
    assert next_due("0 0 15 * 5", SUNDAY) == SUNDAY + timedelta(days=5)
    assert next_due("0 0 3 * 5", SUNDAY) == SUNDAY + timedelta(days=2)


def test_the_edges_of_a_moment() -> None:
    noon = SUNDAY + timedelta(hours=12)
    just = timedelta(microseconds=1)
    assert next_due("0 12 * * *", noon) == next_due("0 12 * * *", noon + just) == noon + timedelta(days=1)
    assert next_due("0 12 * * *", noon - just) == noon
    assert last_due("0 12 * * *", noon, "UTC") == last_due("0 12 * * *", noon + just, "UTC") == noon
    assert last_due("0 12 * * *", noon - just, "UTC") == noon - timedelta(days=1)


WRONG = """
nightly
@daily
0 12 * *
0 0 12 * * *
0 12 * * 8
0 12 * * someday
0 12 * * 1/0
60 12 * * *
0 12 31 13 *
0 12 31 2 *
"""


@pytest.mark.parametrize("cron", WRONG.strip().splitlines())
def test_what_cannot_be(cron: str) -> None:
    with pytest.raises(ValueError, match=r"must be five cron fields"):
        checked(cron)
