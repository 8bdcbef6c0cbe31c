"""How long a page may take: as long as said, and longer where what is served is slow in the same moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.playbooks.node_modules import load

health = load("environment.health")
Question = Callable[[float], float | None]


def taking(seconds: float, *, says: float | None = None) -> Question:
    """A page that takes so long, unless it is given up before; it answers with what it took, or with ``says``."""

    def ask(given: float) -> float | None:
        time.sleep(min(seconds, given))
        if given < seconds:
            raise TimeoutError("given up")
        return says if says is not None else seconds

    return ask


def hanging(given: float) -> None:
    """A served release that does not answer in time, either."""
    time.sleep(given)


def broken(_given: float) -> None:
    """A served release that makes no page: how fast it fails says nothing."""


def test_what_is_in_time_is_not_compared() -> None:
    patience, asked = health.Patience(5, 20), threading.Event()
    assert patience.wait(taking(0.01, says=7), lambda _given: asked.set()) == 7
    assert not asked.is_set()


def test_slow_is_no_death_where_what_is_served_is_slow() -> None:
    assert health.Patience(0.2, 20).wait(taking(0.8, says=7), taking(0.4, says=4)) == 7


def test_what_comes_while_the_other_one_is_asked_has_come() -> None:
    assert health.Patience(0.2, 20).wait(taking(0.6, says=7), hanging) == 7


@pytest.mark.parametrize("served", [None, broken, taking(0.05), hanging])
def test_a_page_that_hangs_is_dead(served: Question | None) -> None:
    with pytest.raises(TimeoutError):
        health.Patience(0.2, 0.8).wait(taking(60), served)


def test_it_is_dead_when_it_takes_many_times_as_long() -> None:
    with pytest.raises(TimeoutError, match=r"what is served took \d+\.\d s"):
        health.Patience(0.2, 60).wait(taking(60), taking(0.3))


def test_what_was_seen_holds_for_what_follows() -> None:
    """After the switch the release that was served before is not asked any more."""
    patience = health.Patience(0.2, 60)
    patience.wait(taking(0.7), taking(0.4, says=0.7))
    assert patience.wait(taking(0.8, says=7), hanging, 0.1) == 7
    with pytest.raises(TimeoutError):
        patience.wait(taking(60), broken)
    quicker = health.Patience(0.2, 60)
    quicker.wait(taking(0.9), hanging)
    assert quicker.wait(taking(0.8, says=7)) == 7, "so long it takes at least"


def test_what_goes_wrong_is_told_as_it_is() -> None:
    def refuses(_given: float) -> None:
        raise ConnectionRefusedError("nobody")

    with pytest.raises(ConnectionRefusedError, match="nobody"):
        health.Patience(0.2, 1).wait(refuses, taking(0.1))


def test_it_is_what_the_environment_says() -> None:
    assert (health.Patience.of({}).usual, health.Patience.of({"health": None}).most) == (10, 60)
    said = health.Patience.of({"health": {"timeout_s": 30, "slow_timeout_s": 20}})
    assert (said.usual, said.most) == (30, 30)
