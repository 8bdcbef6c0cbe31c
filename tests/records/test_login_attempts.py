from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from reconciler.records.database import open_database
from reconciler.records.login_attempts import IN_TOTAL, PER_SOURCE, LoginAttempts
from tests.records.examples import NOON, after


def fail(attempts: LoginAttempts, source: str, times: int, now: datetime = NOON) -> None:
    """Fail that often within one moment, and be allowed to."""
    assert [attempts.begin(source, now) for _ in range(times)] == [0] * times


def test_the_wait_doubles_up_to_its_longest(engine: Engine) -> None:
    attempts = LoginAttempts(engine)
    fail(attempts, "192.0.2.1", 5)
    now, waits = NOON, []
    for _ in range(13):
        wait = attempts.begin("192.0.2.1", now)
        assert attempts.begin("192.0.2.1", now) == wait, "asking while blocked costs nothing"
        waits.append(wait)
        now += timedelta(seconds=wait)
        assert attempts.begin("192.0.2.1", now) == 0
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]


def test_one_source_does_not_slow_another(engine: Engine) -> None:
    attempts = LoginAttempts(engine)
    fail(attempts, "192.0.2.1", 5)
    assert attempts.begin("192.0.2.1", NOON) > 0
    assert attempts.begin("192.0.2.2", NOON) == 0


def test_slowing_survives_a_restart(engine: Engine) -> None:
    fail(LoginAttempts(engine), "192.0.2.1", 5)
    engine.dispose()
    reopened = open_database(engine.url)
    assert LoginAttempts(reopened).begin("192.0.2.1", NOON) == 1
    assert LoginAttempts(reopened).begin("192.0.2.1", after(seconds=1)) == 0
    assert LoginAttempts(reopened).begin("192.0.2.1", after(seconds=1)) == 2


def test_a_success_forgets_the_sources_failures(engine: Engine) -> None:
    attempts = LoginAttempts(engine)
    fail(attempts, "192.0.2.1", 5)
    assert attempts.begin("192.0.2.1", after(seconds=1)) == 0
    attempts.succeeded("192.0.2.1", after(seconds=1))
    fail(attempts, "192.0.2.1", 5, after(seconds=1))


def test_failures_are_forgotten_with_time(engine: Engine) -> None:
    attempts = LoginAttempts(engine)
    fail(attempts, "192.0.2.1", 5)
    later = NOON + 2 * PER_SOURCE.forgive
    assert [attempts.begin("192.0.2.1", later) for _ in range(3)] == [0, 0, 1]


def test_many_sources_together_are_slowed_too(engine: Engine) -> None:
    attempts = LoginAttempts(engine)
    for n in range(IN_TOTAL.free):
        assert attempts.begin(f"192.0.2.{n}", NOON) == 0
    assert attempts.begin("198.51.100.1", NOON) == 1
    now = NOON
    for n in range(12):
        now += timedelta(seconds=attempts.begin(f"198.51.100.{n}", now))
        assert attempts.begin(f"198.51.100.{n}", now) == 0
    assert attempts.begin("203.0.113.1", now) == 30


def test_a_source_that_logged_in_lately_is_not_slowed_by_others(engine: Engine) -> None:
    attempts = LoginAttempts(engine)
    assert attempts.begin("203.0.113.9", NOON) == 0
    attempts.succeeded("203.0.113.9", NOON)
    for n in range(IN_TOTAL.free):
        attempts.begin(f"192.0.2.{n}", NOON)
    assert attempts.begin("203.0.113.1", NOON) > 0
    fail(attempts, "203.0.113.9", PER_SOURCE.free)
    assert attempts.begin("203.0.113.9", NOON) > 0, "but by its own failures it is"


def test_success_does_not_count_in_total(engine: Engine) -> None:
    attempts = LoginAttempts(engine)
    for _ in range(2 * IN_TOTAL.free):
        assert attempts.begin("192.0.2.1", NOON) == 0
        attempts.succeeded("192.0.2.1", NOON)
    assert attempts.begin("192.0.2.2", NOON) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("not an address", "everybody", False),
    ],
)
def test_what_counts_as_one_source(engine: Engine, one: str, other: str, same: bool) -> None:
    attempts = LoginAttempts(engine)
    fail(attempts, one, 5)
    assert (attempts.begin(other, NOON) > 0) is same


def test_a_hundred_at_once_gain_nothing(engine: Engine) -> None:
    attempts = LoginAttempts(engine)
    with ThreadPoolExecutor(16) as pool:
        allowed = sum(wait == 0 for wait in pool.map(lambda _: attempts.begin("192.0.2.1", NOON), range(100)))
    assert allowed == PER_SOURCE.free


def test_prune(engine: Engine) -> None:
    attempts = LoginAttempts(engine)
    fail(attempts, "192.0.2.1", 5)
    assert attempts.prune(NOON) == 0
    assert attempts.prune(after(days=1)) == 1
    assert attempts.begin("192.0.2.1", NOON) == 0
