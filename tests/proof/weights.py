"""What each file of tests costs, measured; from it the order in which files run, and four equal parts of them.

`tests/weights.json` has, for each file, its seconds in `make test` and in `make test-long`. A file that it does not
name yet counts with what its tests would cost on average.
"""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

TABLE = Path(__file__).parents[1] / "weights.json"
TOP = TABLE.parents[1]
SUITES = ("short", "long")
AVERAGE_S = 0.5
"""A test of a file that was never measured."""
LEADING = 0.1
"""The share of the whole from which a file could keep one process at work after all others are done."""


class Weights:
    """Seconds by file, of one suite."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds

    @classmethod
    def read(cls, suite: str, table: Path = TABLE) -> "Weights":
        """``suite``: ``short`` or ``long``. What was measured in the other alone counts as there."""
        (other,) = set(SUITES) - {suite}
        measured = json.loads(table.read_text()) if table.exists() else {}
        return cls({name: one.get(suite, one.get(other)) for name, one in measured.items()})

    def of(self, files: Iterable[str]) -> dict[str, float]:
        """The weight of each file, from the files of all tests: one entry for each test."""
        return {name: self._seconds.get(name, times * AVERAGE_S) for name, times in Counter(files).items()}


def heaviest_first(weights: Mapping[str, float]) -> list[str]:
    return sorted(weights, key=lambda name: (-weights[name], name))


def order(weights: Mapping[str, float]) -> list[str]:
    """Directory by directory, the heaviest first: what the tests of one share ends with the last of them.

    A file that is long beside all others comes before them.
    """
    bound = LEADING * sum(weights.values())
    directories: Counter[str] = Counter()
    for name, seconds in weights.items():
        directories[str(Path(name).parent)] += seconds  # type: ignore[assignment]
    ranked = sorted(heaviest_first(weights), key=lambda name: _rank(directories, str(Path(name).parent)))
    return sorted(ranked, key=lambda name: -weights[name] if weights[name] > bound else 0)


def _rank(directories: Mapping[str, float], name: str) -> tuple[float, str]:
    return -directories[name], name


def part_of(weights: Mapping[str, float], number: int, parts: int) -> set[str]:
    """The files of part ``number`` (from 1): each file, the heaviest first, goes where there is least so far."""
    loads, members = [0.0] * parts, [set[str]() for _ in range(parts)]
    for name in heaviest_first(weights):
        lightest = loads.index(min(loads))
        loads[lightest] += weights[name]
        members[lightest].add(name)
    return members[number - 1]


def measured(report: Path) -> dict[str, float]:
    """Seconds by file, from a JUnit report of pytest's."""
    found: Counter[str] = Counter()
    for case in ET.parse(report).iter("testcase"):
        found[_file(case.get("classname", ""))] += float(case.get("time", 0))  # type: ignore[assignment]
    return {name: round(seconds, 1) for name, seconds in found.items() if name}


def _file(module: str) -> str:
    """The file of a dotted name that may end with a class's."""
    parts = module.split(".") if module else []  # an interrupted run reports one without a name
    while parts:
        path = Path(*parts).with_suffix(".py")
        if (TOP / path).is_file():
            return str(path)
        parts.pop()
    return ""


def weigh(reports: Iterable[Path], suite: str, table: Path = TABLE) -> int:
    """Take the weights of reports into the table, and forget files that are gone; how many files were weighed."""
    known = json.loads(table.read_text()) if table.exists() else {}
    new = {name: seconds for report in reports for name, seconds in measured(report).items()}
    for name, seconds in new.items():
        known.setdefault(name, {})[suite] = seconds
    kept = {name: known[name] for name in sorted(known) if (TOP / name).is_file()}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(kept[name], sort_keys=True)}" for name in kept)
    table.write_text(f"{{\n{lines}\n}}\n")
    return len(new)
