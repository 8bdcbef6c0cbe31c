"""Whether a neighbour is starved: how long its answers take, held against what the machine gives at that very moment.

Beside each answer a control is done again and again: a fixed piece of work of a process of the machine's own, which no
node, no lock and no service can hold up. An answer counts as so many controls.
A machine that is busy slows both; what a hacked site or an operation holds slows the answer alone.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.controlplane import until

MOST = 2.0
"""An answer of a neighbour, against its own while nothing is done."""
MOST_OF_A_FEW = 4.0
"""The slowest, against the slower ones: what chance does to them on a machine that others use."""
MOST_OF_ONE = 3.0
"""One answer alone, against the slowest while nothing is done: with no other that is slow, it may be chance, too."""
FEW = 5
"""Of so many, one in four that are slow tell something."""
ENOUGH = 40
"""Answers while nothing is done, before anything is held against them."""
KEPT = 300
COLD = 3
"""The first answers, which find nothing ready."""
PAUSE_S = 0.15
IDLE_PAUSE_S = 0.6
"""When enough is known of what it takes while nothing is done."""
CONTROL_PAUSE_S = 0.02
# Two processes that wake each other, as nginx, PHP and MariaDB do for a page, and a log.
CONTROL = r"""
import hashlib, os, sys
there, back, block = os.pipe(), os.pipe(), b"x" * (1 << 19)
if os.fork() == 0:
    os.close(there[1])
    os.close(back[0])
    while os.read(there[0], 1):
        hashlib.sha256(block).digest()
        os.write(back[1], b"x")
    os._exit(0)
os.close(there[0])
os.close(back[1])
with open(sys.argv[1], "ab", buffering=0) as log:
    while sys.stdin.buffer.read(1):
        for _ in range(10):
            hashlib.sha256(block).digest()
            os.write(there[1], b"x")
            os.read(back[0], 1)
            log.write(b"x" * 100)
        log.truncate(0)
        os.write(1, b"x")
"""


class Control:
    """A fixed piece of work, done whenever it is asked for, in a session of its own as each service of a node has."""

    def __init__(self) -> None:
        self._log = tempfile.NamedTemporaryFile(prefix="tu-control-")  # noqa: SIM115 - it is there as long as this is
        argv = [sys.executable, "-I", "-S", "-c", CONTROL, self._log.name]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, bufsize=0, start_new_session=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()
        self._log.close()

    def took(self) -> float:
        """Seconds of doing it once."""
        assert self._process.stdin
        assert self._process.stdout
        began = time.monotonic()
        self._process.stdin.write(b"x")
        assert self._process.stdout.read(1) == b"x", "the control ended"
        return time.monotonic() - began

    @contextmanager
    def beside(self) -> Iterator[list[float]]:
        """What it takes, again and again, as long as the block lasts; once at least."""
        took: list[float] = []
        ended = threading.Event()

        def again() -> None:
            while True:
                took.append(self.took())
                if ended.wait(CONTROL_PAUSE_S):
                    return

        thread = threading.Thread(target=again, daemon=True)
        thread.start()
        try:
            yield took
        finally:
            ended.set()
            thread.join()


def by_the_control(seconds: float, controls: Sequence[float]) -> float:
    """How many controls an answer took; of those beside it, each counts as long as it lasted. So one that stood still
    together with the answer counts for it, and how many there were does not.
    """
    return seconds * sum(controls) / sum(one * one for one in controls)


def starved(before: Sequence[float], during: Sequence[float]) -> str:
    """What is wrong with answers while something was done, in words; empty where each of these holds:

    - of more than a few, the slower ones took no more than twice what the slower ones took before;
    - the slowest took no more than twice what the slowest took before. A few may be slow by chance: up to four times
      what the slower ones took they are let be, and one alone up to three times the slowest. What hangs for a moment or
      for ever takes more.
    """
    slower, told = _slower(before), []
    if len(during) >= FEW and (times := _slower(during) / slower) > MOST:
        told.append(f"a neighbour's slower answers took {times:.1f} × their own, for what the machine gave")
    *_, second, slowest = [0.0, *sorted(during)]
    most = max(MOST * max(before), MOST_OF_A_FEW * slower)
    if second > most or slowest > max(MOST_OF_ONE * max(before), most):
        times = slowest / max(before)
        told.append(f"a neighbour's slowest answer took {times:.1f} × its own, for what the machine gave")
    return "; ".join(told)


def _slower(times: Sequence[float]) -> float:
    """Three in four are quicker: one of many that is slow by chance is not it, half of them that wait are."""
    return sorted(times)[len(times) * 3 // 4]


@dataclass
class Answers:
    """What each answer took, by the control; while nothing is done, while the last operation ran, and in its runs
    before."""

    before: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    earlier: dict[str, list[float]] = field(default_factory=dict)

    def starved(self, operation: str) -> str:
        """What is wrong with those while it ran; a few are held together with those of its runs before."""
        together = [*self.earlier.get(operation, ()), *self.during][-max(FEW, len(self.during)) :]
        found = starved(self.before, self.during) or starved(self.before, together)
        self.earlier[operation] = [] if found else together[-FEW:]
        return found


class Watch:
    """Asks for a page again and again. ``ask`` answers what is wrong with the page."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self.answers = Answers()
        self.failures: list[str] = []
        self._ask = ask
        self._operation = ""
        self._answer = threading.Lock()
        """Held while somebody waits for an answer."""
        self._soon = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        with Control() as control:
            for _ in range(COLD):
                self._ask()
            while not self._stop:
                with self._answer:
                    self._look_once(control)
                is_known = len(self.answers.before) >= KEPT // 4 and not self._operation
                self._soon.wait(IDLE_PAUSE_S if is_known else PAUSE_S)
                self._soon.clear()

    def _look_once(self, control: Control) -> None:
        operation = self._operation
        with control.beside() as controls:
            began = time.monotonic()
            wrong = self._ask()
            took = time.monotonic() - began
        if wrong:
            self.failures.append(wrong)
        # It began before, and was held up by what began meanwhile.
        if operation or self._operation:
            self.answers.during.append(by_the_control(took, controls))
        else:
            self.answers.before = [*self.answers.before, by_the_control(took, controls)][-KEPT:]

    @contextmanager
    def watching(self, operation: str) -> Iterator[None]:
        """Whatever is answered until the end of the block, or asked until then, is of this operation; one at least."""
        until(lambda: len(self.answers.before) >= ENOUGH, "answers while nothing is done", 300)
        self.failures.clear()
        self.answers.during.clear()
        self._operation = operation
        self._soon.set()
        try:
            yield
        finally:
            until(lambda: bool(self.answers.during), "an answer", 300)
            with self._answer:
                self._operation = ""

    def stop(self) -> None:
        self._stop = True
        self._soon.set()
        self._thread.join()
