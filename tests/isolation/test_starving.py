"""A neighbour that is starved is told from a machine that is busy: by made-up answers, and by real ones of a page of
this machine's.
"""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.controlplane import until
from tests.isolation.starving import CONTROL_PAUSE_S, ENOUGH, FEW, Answers, Control, Watch, by_the_control, starved

PAGE_S = 0.1
CONTROL_S = 0.007
STORIES = 400


@dataclass
class Story:
    """Answers and their controls on a machine that is as busy as ``busy`` says, with its chance in both."""

    chance: random.Random
    busy: Callable[[], float] = lambda: 1.0

    def answer(self, held: Callable[[float], float] = lambda took: took) -> float:
        """By the control, of a page that is held up so."""
        busy = self.busy()
        took = held(PAGE_S * busy * self._noise())
        beside = min(100, max(2, int(took / (CONTROL_PAUSE_S + CONTROL_S * busy))))
        return by_the_control(took, [CONTROL_S * busy * self._noise() for _ in range(beside)])

    def answers(self, number: int, held: Callable[[float], float] = lambda took: took) -> list[float]:
        return [self.answer(held) for _ in range(number)]

    def _noise(self) -> float:
        return self.chance.lognormvariate(0, 0.25)


@pytest.mark.parametrize("number", [1, 2, FEW, 20, 80])
@pytest.mark.parametrize("busy", [1.0, 4.0, 12.0])
def test_a_machine_that_became_busy_starves_nobody(busy: float, number: int) -> None:
    """However busy, and quiet before; none of many such trials is told wrongly."""
    for seed in range(STORIES // 20):
        quiet, loaded = Story(random.Random(seed)), Story(random.Random(seed + 1), lambda: busy)
        assert starved(quiet.answers(ENOUGH), loaded.answers(number)) == ""
        assert starved(loaded.answers(ENOUGH), quiet.answers(number)) == ""


def test_a_machine_that_is_busy_now_and_then_starves_nobody() -> None:
    for seed in range(STORIES):
        chance = random.Random(seed)
        story = Story(chance, lambda chance=chance: chance.choice((1.0, 1.0, 3.0, 15.0)))  # type: ignore[misc]
        assert starved(story.answers(ENOUGH), story.answers(chance.choice((1, 3, 20)))) == ""


def test_one_slow_answer_may_be_chance_and_two_are_not() -> None:
    before = [1.0] * 39 + [2.0]
    assert starved(before, [2.0] * 20 + [5.0]) == starved(before, [5.0]) == ""
    for during in ([5.0, 5.0], [2.0] * 20 + [5.0, 5.0], [9.0], [2.0] * 20 + [9.0]):
        assert "slowest answer took" in starved(before, during)


def _all(took: float) -> float:
    return took * 3


HOLDS: dict[str, Callable[[random.Random], Callable[[float], float]]] = {
    "all PHP is taken, and each waits for two others": lambda _chance: _all,
    "half of them wait for three others": lambda chance: lambda took: took * (4 if chance.random() < 0.5 else 1),
}


@pytest.mark.parametrize("busy", [1.0, 12.0])
@pytest.mark.parametrize("hold", HOLDS)
def test_who_waits_again_and_again_is_starved(hold: str, busy: float) -> None:
    """On a machine that is as busy as it was, and on one that became so."""
    for seed in range(STORIES // 10):
        chance = random.Random(seed)
        before = Story(chance).answers(ENOUGH)
        during = Story(chance, lambda: busy).answers(40, HOLDS[hold](chance))
        assert starved(before, during), seed


@pytest.mark.parametrize("number", [1, 2, FEW, 40])
@pytest.mark.parametrize(("busy", "seconds"), [(1.0, 1.0), (1.0, 30.0), (6.0, 5.0), (12.0, 30.0)])
def test_one_answer_that_hangs_is_told_however_few_there_are(busy: float, seconds: float, number: int) -> None:
    """A lock that is held for seconds, a node that stands still: among quick ones, too."""
    for seed in range(STORIES // 10):
        story = Story(random.Random(seed), lambda: busy)
        before, during = story.answers(ENOUGH), story.answers(number - 1)
        during.append(story.answer(lambda took: took + seconds))
        told = starved(before, during)
        assert "slowest answer took" in told, seed


def test_a_machine_that_stands_still_for_a_moment_hangs_nobody() -> None:
    """Both stood still: it is a control that took so long. Beside quick ones, nothing but the answer did."""
    quick = [CONTROL_S] * 4
    assert by_the_control(PAGE_S + 5, [*quick, CONTROL_S + 5]) < 2 * by_the_control(PAGE_S, quick)
    assert by_the_control(PAGE_S + 5, quick * 50) > 40 * by_the_control(PAGE_S, quick)


def test_what_is_short_is_held_together_with_its_like() -> None:
    """One answer alone says little of lasting slowness; those of an operation's runs do."""
    answers, told = Answers(before=[1.0] * 37 + [2.0] * 3), []
    for _ in range(FEW):
        answers.during = [2.5]
        told.append(answers.starved("purge"))
        answers.during = [1.0]
        assert answers.starved("login") == ""
    *first, last = told
    assert first == [""] * (FEW - 1)
    assert "slower answers took 2.5 ×" in last
    answers.during = [2.5]
    assert answers.starved("purge") == "", "it is told once, and not of what comes after"


PAGE = r"""
import hashlib, sys
block = b"x" * (1 << 20)
while number := sys.stdin.buffer.read(1):
    for _ in range(20 * number[0]):
        hashlib.sha256(block).digest()
    sys.stdout.buffer.write(b"x")
    sys.stdout.buffer.flush()
"""


class Page:
    """A page of another process, before which ``waits`` others are answered."""

    def __init__(self) -> None:
        self.waits = self.asked = 0
        argv, pipe = [sys.executable, "-I", "-S", "-c", PAGE], subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, bufsize=0, start_new_session=True)

    def ask(self) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.asked += 1
        self.process.stdin.write(bytes([1 + self.waits]))
        return "" if self.process.stdout.read(1) else "it ended"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    found = Page()
    yield found
    found.process.communicate()


@pytest.fixture(scope="module")
def watch(page: Page) -> Iterator[Watch]:
    found = Watch(page.ask)
    yield found
    found.stop()


@contextmanager
def busy() -> Iterator[None]:
    """Four more processes than there were want all of a core."""
    argv = [sys.executable, "-I", "-S", "-c", "while True: pass"]
    others = [subprocess.Popen(argv, start_new_session=True) for _ in range(4)]
    try:
        yield
    finally:
        for one in others:
            one.kill()
            one.wait()


def _answered(watch: Watch, number: int) -> Callable[[], bool]:
    return lambda: len(watch.answers.during) >= number


@pytest.mark.long
def test_of_real_answers_only_those_that_wait_are_told(page: Page, watch: Watch) -> None:
    with watch.watching("quiet"):
        until(_answered(watch, 10), "answers")
    assert watch.answers.starved("quiet") == ""
    with watch.watching("busy"), busy():
        until(_answered(watch, 20), "answers")
    assert watch.answers.starved("busy") == ""
    with watch.watching("held"), busy():
        page.waits = 9
        until(_answered(watch, FEW + 1), "answers")
    page.waits = 0
    assert "slower answers" in watch.answers.starved("held")
    assert watch.failures == []


def test_an_operation_that_is_over_at_once_has_an_answer_of_its_own(page: Page, watch: Watch) -> None:
    for _ in range(3):
        with watch.watching("short"):
            pass
        assert watch.answers.during


def test_who_hangs_beyond_the_end_of_an_operation_is_of_it(page: Page, watch: Watch) -> None:
    with watch.watching("held"):
        until(_answered(watch, 1), "an answer")
        quick, asked = list(watch.answers.during), page.asked
        page.waits = 60
        until(lambda: page.asked > asked + 1, "somebody to wait")
    page.waits = 0
    assert max(watch.answers.during) > 5 * min(quick), "chance makes some of the quick ones slow"


def test_the_control_is_done_as_long_as_an_answer_takes() -> None:
    with Control() as control:
        with control.beside() as once:
            pass
        assert len(once) == 1
        with control.beside() as often:
            until(lambda: len(often) > 3, "the control to be done again and again")
