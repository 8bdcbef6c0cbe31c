"""The rule of who may run, as pure cases."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.records.locks import Lock, Waiting, fitting, free_slot, node_lock, site_lock


def waiting(*locks: Lock | str, wanted: bool = True) -> Waiting:
    return Waiting(uuid4(), tuple(Lock(lock) if isinstance(lock, str) else lock for lock in locks), wanted)


def first(line: Iterable[Waiting], held: dict[str, int] | None = None) -> Waiting | None:
    return next(fitting(line, held or {}), None)


def test_the_oldest_that_finds_its_locks_free_goes_first() -> None:
    old, young = waiting("a"), waiting("a")
    assert first([old, young]) is old
    assert first([old, young], {"a": 1}) is None


def test_another_resource_is_nobodys_business() -> None:
    old, young = waiting("a"), waiting("b")
    assert first([old, young], {"a": 1}) is young


def test_a_younger_job_does_not_overtake_at_the_lock_that_the_older_waits_for() -> None:
    """Node n has one of its two slots left; the older job needs it once site a is free, but cannot use it yet."""
    old = waiting("a", Lock("n", 2))
    assert first([old, waiting("a", "m")], {"a": 1}) is None
    young = waiting("b", Lock("n", 2))
    assert first([old, young], {"a": 1, "n": 1}) is young


def test_a_job_that_waits_for_its_second_lock_keeps_its_first() -> None:
    old = waiting("a", "n")
    assert first([old, waiting("a")], {"n": 1}) is None


def test_capacity_counts_slots() -> None:
    job = waiting(Lock("n", 2))
    assert first([job], {"n": 1}) is job
    assert first([job], {"n": 2}) is None


def test_lowered_capacity_waits_until_enough_slots_are_free() -> None:
    assert first([waiting(Lock("n", 1))], {"n": 2}) is None


def test_a_job_from_before_the_capacity_was_raised_is_not_overtaken() -> None:
    assert first([waiting(Lock("n", 1)), waiting(Lock("n", 2))], {"n": 1}) is None


def test_jobs_of_another_workers_kind_keep_their_place() -> None:
    other, mine, elsewhere = waiting("a", wanted=False), waiting("a"), waiting("b")
    assert first([other, mine, elsewhere]) is elsewhere


def test_a_candidate_that_was_not_taken_keeps_its_place_too() -> None:
    skipped, same, elsewhere = waiting("a"), waiting("a"), waiting("b")
    assert list(fitting([skipped, same, elsewhere], {})) == [skipped, elsewhere]


def test_a_job_without_locks_always_fits() -> None:
    job = waiting()
    assert first([waiting("a"), job], {"a": 1}) is job


def test_free_slot_is_the_lowest() -> None:
    assert free_slot(Lock("n", 3), {0, 2}) == 1
    assert free_slot(Lock("n", 3), set()) == 0


def test_a_lock_without_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Lock("n", 0)


def test_names_of_locks() -> None:
    some = UUID(int=1)
    assert site_lock(some) == Lock(f"site:{some}", 1)
    assert node_lock(some, 4) == Lock(f"node:{some}", 4)


lines = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("mn")).map(lambda pair: waiting(pair[0], Lock(pair[1], 2))),
    min_size=1,
    max_size=8,
)


@given(lines)
def test_nobody_starves(line: list[Waiting]) -> None:
    """However long the line behind it, the oldest job starts when everything that runs has ended."""
    assert first(line) is line[0]


@given(lines, st.dictionaries(st.sampled_from("abcmn"), st.integers(0, 2)))
def test_who_needs_the_same_first_lock_starts_in_order(line: list[Waiting], held: dict[str, int]) -> None:
    started = list(fitting(line, held))
    for older, younger in pairwise(line):
        if older.locks[0] == younger.locks[0] and younger in started:
            assert older in started
