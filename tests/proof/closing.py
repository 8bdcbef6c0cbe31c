"""The last words of a run: what it took, against the budget, and which files took most."""

import resource
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.proof import is_long

SLOWEST = 10
OUTCOMES = ("passed", "failed", "error", "skipped")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("proof").addoption(
        "--budget", type=float, metavar="MINUTES", help="say at the end how the run compares with it"
    )


_began_s = 0.0
"""What this process had used when the test under way began."""


def begin() -> None:
    """A test begins in this process."""
    global _began_s  # noqa: PLW0603 (one test at a time)
    _began_s = cpu_seconds()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart() -> None:
    begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """With its teardown, a test is told (in the JUnit report, too) what it used of the processors."""
    if call.when == "teardown":
        item.user_properties.append(("cpu_s", round(cpu_seconds() - _began_s, 2)))
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(_Worker(), "proof-worker")
    else:
        config.pluginmanager.register(Closing(config), "proof-closing")


def cpu_seconds(*, alone: bool = False) -> float:
    """Of this process and, unless it ``alone`` is asked about, of all that it started and that has ended."""
    whom = (resource.RUSAGE_SELF,) if alone else (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whom))


class _Worker:
    """Tells the controlling process what it used, once its last fixture is gone."""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        session.config.workeroutput["cpu_s"] = cpu_seconds()  # type: ignore[attr-defined]


class Closing:
    def __init__(self, config: pytest.Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._began = clock()
        self._workers_s = 0.0
        self._files: Counter[str] = Counter()
        self._files_cpu: Counter[str] = Counter()
        self._outcomes: dict[str, int] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[0]
        self._files[name] += report.duration  # type: ignore[assignment]
        if report.when == "teardown":
            self._files_cpu[name] += dict(report.user_properties).get("cpu_s", 0)  # type: ignore[assignment, call-overload]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """xdist's, in the controlling process: a worker has ended. One that crashed told nothing."""
        self._workers_s += getattr(node, "workeroutput", {}).get("cpu_s", 0.0)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        self._outcomes = {name: len(terminalreporter.stats.get(name, ())) for name in OUTCOMES}
        if self._config.option.budget is None:
            return
        terminalreporter.section(f"slowest {SLOWEST} files")
        for name, seconds in self._files.most_common(SLOWEST):
            terminalreporter.write_line(f"{seconds:8.1f} s, {self._files_cpu[name]:6.1f} s CPU  {name}")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """After pytest's own closing line."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and self._config.option.budget is not None:
            reporter.write_line(self.said(), **self._look())

    def said(self) -> str:
        """The last line: of which commit, how many, how long, and whether that is within the budget."""
        wall_s, budget_s = self._wall_s(), self._config.option.budget * 60
        counts = ", ".join(f"{number} {name}" for name, number in self._outcomes.items() if number)
        took = f"{_clock_time(wall_s)} wall, {self._cpu_s():.0f} s CPU"
        budget = f"budget {_clock_time(budget_s)}"
        verdict = f"OVER THE BUDGET by {_clock_time(wall_s - budget_s)} ({budget})" if wall_s > budget_s else budget
        return f"{self._suite()} at {_commit(self._config.rootpath)}: {counts or 'no test'}; {took}; {verdict}"

    def _cpu_s(self) -> float:
        """Workers are children, too, and have told already what they used."""
        return self._workers_s + cpu_seconds(alone=True) if self._workers_s else cpu_seconds()

    def _wall_s(self) -> float:
        return self._clock() - self._began

    def _look(self) -> dict[str, bool]:
        return {"red": True, "bold": True} if self._wall_s() > self._config.option.budget * 60 else {}

    def _suite(self) -> str:
        part = self._config.option.part
        return ("make test-long" if is_long() else "make test") + (f" PART={part[0]}/{part[1]}" if part else "")


def _clock_time(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def _commit(top: Path) -> str:
    """Short, with a + where the work tree has changes that are not in it."""
    argv = ["git", "-C", str(top), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"
