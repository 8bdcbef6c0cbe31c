"""The suites themselves: how often, in which order, which part, alone; and what is said at the end."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.proof import count
from tests.proof.weights import Weights, heaviest_first, measured, order, part_of, weigh

TOP = Path(__file__).parents[2]
PLUGINS = ["-pxdist", *(f"-ptests.proof.{name}" for name in ("plugin", "alone", "closing"))]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> object:
    """Pytest as a process of its own with our plugins, on what `pytester` has made."""
    monkeypatch.setenv("PYTHONPATH", str(TOP))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the others take a second to import
    monkeypatch.delenv("TRUEUP_TEST_LONG", raising=False)

    def _run(*options: str) -> pytest.RunResult:
        argv = [sys.executable, "-m", "pytest", "-pno:cacheprovider", *PLUGINS, *options]
        return pytester.run(*argv, timeout=300)

    return _run


def ran(result: pytest.RunResult) -> list[str]:
    """The tests of a verbose run, as they ended."""
    return re.findall(r"^(?:\[gw\d\] .* )?(?:PASSED )?(test_\w+\.py::\w+)(?: PASSED.*)?\s*$", result.stdout.str(), re.M)


COUNTS = """
import subprocess, sys
from tests.proof import count
N = count(short=2, full=50)
def test_counts():
    there = "from tests.proof import count; print(count(short=2, full=50))"
    child = subprocess.run([sys.executable, "-c", there], capture_output=True, text=True, check=True).stdout
    assert (N, int(child)) == ({0}, {0})
"""


@pytest.mark.parametrize(("options", "wanted"), [((), 2), (("--long",), 50), (("--long", "-n1"), 50)])
def test_full_counts_are_asked_for(pytester: pytest.Pytester, run, options: tuple[str, ...], wanted: int) -> None:
    pytester.makepyfile(COUNTS.format(wanted))
    run(*options).assert_outcomes(passed=1)


def test_this_run_s_counts() -> None:
    assert count(short=1, full=2) == (2 if os.environ.get("TRUEUP_TEST_LONG") == "1" else 1)


def files(pytester: pytest.Pytester) -> None:
    """Three files, of which the last has the most tests, so the most weight."""
    for number, name in enumerate(("one", "two", "three"), 1):
        tests = "\n".join(f"def test_{letter}(): pass" for letter in "abcdefghijkl"[: number * 4])
        pytester.makepyfile(**{f"test_{name}": tests})


def test_the_heaviest_file_comes_first(pytester: pytest.Pytester, run) -> None:
    files(pytester)
    found = [name.partition("::")[0] for name in ran(run("-v"))]
    assert list(dict.fromkeys(found)) == ["test_three.py", "test_two.py", "test_one.py"]


def test_parts_are_disjoint_and_all(pytester: pytest.Pytester, run) -> None:
    files(pytester)
    halves = [ran(run("-v", "--part", f"{number}/2")) for number in (1, 2)]
    assert [len(half) for half in halves] == [12, 12]
    assert sorted(halves[0] + halves[1]) == sorted(ran(run("-v")))
    assert len({*halves[0], *halves[1]}) == 24


@pytest.mark.parametrize("part", ["0/4", "5/4", "1", "a/b"])
def test_a_part_that_is_none(pytester: pytest.Pytester, run, part: str) -> None:
    files(pytester)
    result = run("--part", part)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "Give one such as 1/4" in result.stderr.str()


def test_shuffled_within_files_and_the_same_again(pytester: pytest.Pytester, run) -> None:
    files(pytester)
    kept = "\n".join(f"def test_{letter}(): pass" for letter in "abcdefgh")
    pytester.makepyfile(test_kept=f"import pytest\npytestmark = pytest.mark.in_order\n{kept}")
    first = run("-v", "--shuffle")
    seed = re.search(r"--shuffle (\d+)", first.stdout.str())
    assert seed
    assert [name for name in ran(first) if "kept" in name] == [f"test_kept.py::test_{letter}" for letter in "abcdefgh"]
    shuffled, plain = ran(first), ran(run("-v"))
    assert shuffled != plain, "one in two milliards"
    assert sorted(shuffled) == sorted(plain)
    assert [name.partition("::")[0] for name in shuffled] == [name.partition("::")[0] for name in plain]
    assert ran(run("-v", "--shuffle", seed[1])) == shuffled


def test_several_processes_shuffle_alike(pytester: pytest.Pytester, run) -> None:
    files(pytester)
    run("-n2", "--dist", "loadfile", "--no-loadscope-reorder", "--shuffle").assert_outcomes(passed=24)


DEPENDENT = """
import os, pytest
SEEN = []
@pytest.fixture(scope="session")
def place(tmp_path_factory):
    yield tmp_path_factory.mktemp("place")
    SEEN.append("down")
def test_first(place, tmp_path):
    SEEN.append("first")
def test_needs_the_first(place):
    assert SEEN == ["first"]
def test_fails():
    assert 1 == 2, "as it must"
def test_is_skipped():
    pytest.skip("for a reason")
"""


def test_what_needs_an_earlier_test_fails_alone(pytester: pytest.Pytester, run) -> None:
    pytester.makepyfile(DEPENDENT)
    run().assert_outcomes(passed=2, failed=1, skipped=1)
    alone = run("--alone", "-rs")
    alone.assert_outcomes(passed=1, failed=2, skipped=1)
    alone.stdout.fnmatch_lines(["*AssertionError: as it must*", "*for a reason*"])


def test_a_test_that_takes_its_process_along_is_one_failure(pytester: pytest.Pytester, run) -> None:
    pytester.makepyfile(
        "import os, signal\n"
        "def test_killed(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "def test_ended(): os._exit(7)\n"
        "def test_fine(): pass\n"
    )
    result = run("--alone")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*alone ended of signal SIGKILL*", "*alone ended with status 7*"])


def test_the_last_line_tells_counts_time_and_budget(pytester: pytest.Pytester, run) -> None:
    pytester.makepyfile("def test_good(): pass\ndef test_bad(): assert False\n")
    for options in ((), ("-n1",)):
        *_, closing, last = run("--budget", "9", *options).stdout.lines
        assert "1 failed, 1 passed in" in closing, "pytest's own line is there"
        assert re.fullmatch(
            r"make test at no commit: 1 passed, 1 failed; \d+:\d\d min wall, \d+ s CPU; budget 9:00 min", last
        ), last


def test_over_the_budget_is_said_and_fails_nothing(pytester: pytest.Pytester, run) -> None:
    pytester.makepyfile(test_slow="import time\ndef test_slow(): time.sleep(2.1)\n", test_fast="def test_fast(): pass")
    result = run("--long", "--part", "1/1", "--budget", "0.02")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*slowest*", "* s CPU  test_slow.py", "* s CPU  test_fast.py"])
    last = result.stdout.lines[-1]
    assert "make test-long PART=1/1" in last
    assert re.search(r"OVER THE BUDGET by \d+:\d\d min \(budget 0:01 min\)", last), last


@pytest.mark.long
def test_cpu_is_that_of_all_processes(pytester: pytest.Pytester, run) -> None:
    """It is used by a child of a test, of a worker, too."""
    burn = "import time\nwhile time.process_time() < 20: pass"
    pytester.makepyfile(f"import subprocess, sys\ndef test_burn(): subprocess.run([sys.executable, '-c', {burn!r}])")
    for options in ((), ("-n1",)):
        result = run("--budget", "9", "--junitxml", "report.xml", *options)
        used = re.search(r"(\d+) s CPU", result.stdout.lines[-1])
        assert used
        assert 20 <= int(used[1]) < 40, "and counts nobody twice"
        told = re.search(r'name="cpu_s" value="([\d.]+)"', (pytester.path / "report.xml").read_text())
        assert told
        assert float(told[1]) >= 20


def test_parts_weigh_alike() -> None:
    weights = Weights({f"{number}.py": 100 / number for number in range(1, 41)}).of(f"{n}.py" for n in range(1, 41))
    parts = [part_of(weights, number, 4) for number in range(1, 5)]
    assert set().union(*parts) == set(weights)
    assert sum(map(len, parts)) == len(weights)
    loads = [sum(weights[name] for name in part) for part in parts]
    assert max(loads) <= 1.05 * min(loads)
    assert heaviest_first(weights)[0] == "1.py"


def test_the_files_of_a_directory_come_one_after_the_other() -> None:
    few = {"a/1.py": 5.0, "a/2.py": 4.0, "b/1.py": 8.0, "b/2.py": 0.5, "c/1.py": 9.0, "top.py": 1.0}
    many = {f"many/{number}.py": 4.0 for number in range(20)}
    others = [name for name in order(few | many) if name not in many]
    assert others == ["a/1.py", "a/2.py", "c/1.py", "b/1.py", "b/2.py", "top.py"]


def test_a_file_that_is_long_beside_all_others_comes_first() -> None:
    few = {"a/1.py": 5.0, "a/2.py": 4.0, "b/1.py": 8.0, "c/1.py": 30.0, "c/2.py": 0.5}
    many = {f"many/{number}.py": 4.0 for number in range(20)}
    ordered = order(few | many)
    assert ordered[0] == "c/1.py"
    assert ordered[1] in many, "and the rest of its directory waits its turn"
    assert ordered[-4:] == ["c/2.py", "a/1.py", "a/2.py", "b/1.py"]


def test_a_report_is_taken_into_the_table(tmp_path: Path) -> None:
    report, table = tmp_path / "junit.xml", tmp_path / "weights.json"
    cases = "".join(
        f'<testcase classname="{name}" name="x" time="{seconds}"/>'
        for name, seconds in (
            ("tests.core.test_plan", 1.5),
            ("tests.core.test_plan", 2),
            ("tests.proof.test_proof.SomeClass", 1),
            ("tests.gone", 7),
        )
    )
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert measured(report) == {"tests/core/test_plan.py": 3.5, "tests/proof/test_proof.py": 1.0}
    table.write_text(json.dumps({"tests/gone.py": {"short": 1}, "tests/core/test_plan.py": {"long": 9}}))
    assert weigh([report], "short", table) == 2
    kept = json.loads(table.read_text())
    assert kept == {"tests/core/test_plan.py": {"long": 9, "short": 3.5}, "tests/proof/test_proof.py": {"short": 1.0}}
    long = Weights.read("long", table).of(["tests/core/test_plan.py", "tests/proof/test_proof.py", "a.py", "a.py"])
    assert long == {"tests/core/test_plan.py": 9, "tests/proof/test_proof.py": 1.0, "a.py": 1.0}


@pytest.mark.parametrize(("options", "processes"), [((), 1), (("--long",), 2)])
def test_files_that_share_nodes_are_run_by_one_process(
    pytester: pytest.Pytester, run, options: tuple[str, ...], processes: int
) -> None:
    """In the long suite each of them is long enough."""
    for name in ("one", "two"):
        path = pytester.path / "tests" / "operations" / f"test_{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def test_a(): pass\ndef test_b(): pass\ndef test_c(): pass\n")
    result = run("-v", "-n2", "--dist=loadfile", "--no-loadscope-reorder", *options)
    result.assert_outcomes(passed=6)
    assert len(set(re.findall(r"\[(gw\d)\] .* PASSED", result.stdout.str()))) == processes
