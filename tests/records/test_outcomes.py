from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.core.jobs import RETRIED
from reconciler.records.outcomes import MESSAGE_LIMIT, next_attempt, shortened
from tests.records.examples import NOON, after


@pytest.mark.parametrize(("attempt", "minutes"), [(1, 1), (2, 5), (3, 15), (4, 15)])
def test_waits_grow(attempt: int, minutes: int) -> None:
    assert next_attempt("ANSIBLE_TIMEOUT", attempt, 5, NOON) == after(minutes=minutes)


def test_the_last_attempt_is_the_last() -> None:
    assert next_attempt("ANSIBLE_HOST_FAILED", 2, 3, NOON) is not None
    assert next_attempt("ANSIBLE_HOST_FAILED", 3, 3, NOON) is None


@pytest.mark.parametrize("code", sorted(RETRIED))
def test_codes_that_another_attempt_may_mend(code: str) -> None:
    assert next_attempt(code, 1, 3, NOON) == after(minutes=1)


@pytest.mark.parametrize(
    "code",
    ["ANSIBLE_SYNTAX_ERROR", "ANSIBLE_UNEXPECTED_ERROR", "ANSIBLE_UNKNOWN_EXIT", "JOB_TIMEOUT", "ARCHIVE_INVALID"],
)
def test_codes_that_are_final(code: str) -> None:
    assert next_attempt(code, 1, 3, NOON) is None


def test_waits_are_settings() -> None:
    assert next_attempt("ANSIBLE_TIMEOUT", 1, 3, NOON, [timedelta(seconds=2)]) == after(seconds=2)


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    short = shortened("what happened\n" + "x" * 20_000 + "\nthe end")
    assert len(short) == MESSAGE_LIMIT
    assert short.startswith("what happened\n")
    assert short.endswith("\nthe end")
    assert shortened("brief") == "brief"
