"""Guessing passwords gets slower and slower, wherever it comes from, and restarting doesn't help."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.api.control import Control, assert_error, control_at, log_in

STRANGER = "203.0.113.5"


@pytest.fixture(autouse=True)
def _time_stands_still(control: Control) -> None:
    """Hashing a password may take longer than the first wait, on a machine that does much else."""
    control.clock.stopped_at = datetime.now(UTC)


def guess(control: Control, source: str, times: int) -> list[int]:
    client = control.client(source)
    return [log_in(client, password="wrong").status_code for _ in range(times)]


def test_a_source_is_slowed_and_told_how_long(control: Control) -> None:
    statuses = guess(control, STRANGER, 8)
    assert statuses[:5] == [401] * 5
    assert set(statuses[5:]) == {429}
    response = log_in(control.client(STRANGER), password="wrong")
    message = assert_error(response, 429, "too_many_attempts")
    wait = int(response.headers["retry-after"])
    assert wait >= 1
    assert f"{wait} seconds" in message


def test_the_right_password_waits_too_and_works_afterwards(control: Control) -> None:
    guess(control, STRANGER, 8)
    response = log_in(control.client(STRANGER))
    assert_error(response, 429, "too_many_attempts")
    control.clock.ahead = timedelta(seconds=int(response.headers["retry-after"]) + 1)
    assert log_in(control.client(STRANGER)).status_code == 200


def test_another_source_is_not_slowed(control: Control) -> None:
    guess(control, STRANGER, 8)
    assert log_in(control.client("203.0.113.99")).status_code == 200


def test_a_restart_forgets_nothing(control: Control) -> None:
    guess(control, STRANGER, 8)
    with control_at(control.home) as restarted:
        restarted.clock.stopped_at = control.clock.stopped_at
        assert_error(log_in(restarted.client(STRANGER)), 429, "too_many_attempts")


def test_a_made_up_forwarding_header_is_no_other_source(control: Control) -> None:
    statuses = [
        log_in(control.client(STRANGER, **{"X-Forwarded-For": f"198.51.100.{n}"}), password="wrong").status_code
        for n in range(8)
    ]
    assert 429 in statuses


def test_behind_a_trusted_proxy_the_sender_counts_and_not_what_it_made_up(control: Control) -> None:
    def attempt(forwarded: str) -> int:
        return log_in(control.client("127.0.0.1", **{"X-Forwarded-For": forwarded}), password="wrong").status_code

    assert 429 in [attempt(f"198.51.100.{n}, {STRANGER}") for n in range(8)]
    assert attempt("203.0.113.99") == 401


def test_many_sources_are_slowed_in_total(control: Control) -> None:
    statuses = [guess(control, f"198.51.100.{n}", 1)[0] for n in range(55)]
    assert statuses[:49] == [401] * 49
    assert 429 in statuses[49:]


def test_attempts_at_once_gain_nothing(control: Control) -> None:
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: log_in(control.client(STRANGER), password="wrong").status_code, range(24)))
    assert statuses.count(401) <= 6
    assert set(statuses) == {401, 429}
