"""The table of cases: what a site has, what is done to it, and what is there afterwards.

Data is below ``cases/``, a file for each operation. What is a table of its own elsewhere is not there a second time:
``ELSEWHERE``.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.playbooks.rewrite_cases import CASES as REWRITTEN
from tests.playbooks.test_pairs import SIDES as PAIRED

WHERE = Path(__file__).parent / "cases"
KINDS = {
    "undo": "an undo keeps what visitors wrote",
    "backup": "what is backed up can be restored",
    "size": "large rows",
    "times": "columns that keep their time",
    "rewriting": "addresses and texts in whatever a site keeps",
    "identity": "options that name a post or a term",
    "pairs": "both halves of a pair, or neither",
    "stays": "what a promotion leaves as it is",
    "preview": "what is told of a promotion",
    "copies": "a copy acts on nobody",
    "pages": "pages that are not served any longer",
    "code": "what a deploy brings, leaves out and refuses",
    "rollback": "the way back",
    "login": "the way in",
}
ELSEWHERE: Mapping[str, tuple[str, int]] = {
    "rewriting": ("tests/playbooks/rewrite_cases.py", len(REWRITTEN)),
    "pairs": ("tests/playbooks/test_pairs.py", len(PAIRED)),
}
"""By kind the table that has more of it, and how many cases that has."""
RIGHT = "right"
PLANTED = ("given", "copy", "meanwhile")
"""What a case has there before the operation, in its copy, and where it came from after the copy was made."""


@dataclass(frozen=True)
class Case:
    """One input of one operation. ``was``: what Trueup made of it before; `right`: it stands beside what was wrong.

    ``more``: what the operation reads of it.
    """

    operation: str
    name: str
    kind: str
    was: str
    expect: tuple[Mapping[str, Any], ...]
    planted: Mapping[str, Mapping[str, Any]]
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.operation}: {self.name}"


@dataclass(frozen=True)
class Group:
    """All cases of one operation, which is run once for them; ``asked`` is what it is asked for."""

    operation: str
    about: str
    asked: Mapping[str, Any]
    cases: tuple[Case, ...]


def _group(path: Path) -> Group:
    document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    known = {"name", "kind", "was", "expect", *PLANTED}
    cases = tuple(
        Case(
            operation=path.stem,
            name=one["name"],
            kind=one["kind"],
            was=one["was"],
            expect=tuple(one["expect"]),
            planted={side: one[side] for side in PLANTED if side in one},
            more={name: value for name, value in one.items() if name not in known},
        )
        for one in document["cases"]
    )
    return Group(path.stem, document["about"], document.get("asked", {}), cases)


GROUPS: Mapping[str, Group] = {path.stem: _group(path) for path in sorted(WHERE.glob("*.yaml"))}
CASES: tuple[Case, ...] = tuple(case for group in GROUPS.values() for case in group.cases)


def listed() -> Iterator[str]:
    """The list of all cases by kind, with counts."""
    counts = Counter(case.kind for case in CASES)
    for kind, about in KINDS.items():
        where, more = ELSEWHERE.get(kind, ("", 0))
        yield f"{kind} ({counts[kind] + more}): {about}"
        for case in CASES:
            if case.kind == kind:
                yield f"  {case.id}. It was {'right' if case.was == RIGHT else f'wrong: {case.was}'}"
        if more:
            yield f"  {more} more in {where}"
    elsewhere = sum(more for _, more in ELSEWHERE.values())
    right = sum(case.was == RIGHT for case in CASES)
    yield (
        f"{len(CASES) + elsewhere} cases: {len(CASES)} of {len(GROUPS)} operations, "
        f"{right} of which were right before; {elsewhere} of other tables"
    )
