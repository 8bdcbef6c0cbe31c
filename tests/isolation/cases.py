"""The table of cases: which plants meet which operations, and which of them `make test` has, too.

A case is one plant in one run of one operation. Plants of a kind share the run, but for those that cannot be there
together (``ALONE``).
"""

from dataclasses import dataclass

from tests.isolation.operations import OPERATIONS, Operation
from tests.isolation.plants import PLANTS, Kind, Plant

COPIES = ("clone", "backup", "restore", "drill", "deploy", "adopt", "discard", "promote", "updates")
TABLES = ("clone", "clone-elsewhere", "backup", "promote", "updates", "search-replace")

PAIRS: dict[Kind, tuple[str, ...]] = {
    Kind.LINKS: (*COPIES, "clone-elsewhere", "drift-check", "probe", "reconcile", "remove", "import", "remove-site"),
    Kind.SWAPPED: (
        *("reconcile", "clone", "deploy", "rollback", "discard", "promote", "updates", "drift-check"),
        *("create-beside", "cache", "by-hand", "provision"),
    ),
    Kind.SPECIALS: (*COPIES, "drift-check", "probe", "remove"),
    Kind.SIZES: ("clone", "backup", "drift-check", "deploy", "probe"),
    Kind.NAMES: ("clone", "backup", "drill", "drift-check", "adopt", "discard"),
    Kind.MODES: ("clone", "backup", "drill", "drift-check", "adopt", "remove"),
    Kind.RACES: ("clone", "backup", "deploy", "adopt", "promote", "drift-check", "reconcile"),
    Kind.SQL_NAMES: (*TABLES, "restore", "drill", "domains", "probe", "remove"),
    Kind.SQL_VIEWS: (*TABLES, "probe", "reconcile", "health-check", "login", "domains", "purge", "reset", "remove"),
    Kind.SQL_TRIGGERS: (*TABLES, "restore", "drill", "login", "reconcile", "domains"),
    Kind.SQL_ROWS: ("clone", "clone-elsewhere", "restore", "promote", "search-replace"),
    Kind.OPTIONS: (
        *("probe", "drift-check", "clone", "health-check", "login", "reconcile", "domains", "release", "promote"),
    ),
    Kind.PAGES: ("health-check", "deploy"),
}
"""What meets what. Left out is what has nothing to do with the other, such as a purge with a link."""

SUCCEED = frozenset((Kind.SQL_TRIGGERS, name) for name in ("clone", "clone-elsewhere", "backup", "restore", "drill"))
"""Runs that a plant of this kind does not keep from their end: triggers, routines and events come along, and do nothing
that the site's own user may not do.
"""

ALONE = frozenset({Kind.PAGES})

SHORT: dict[Kind, tuple[str, ...]] = {
    Kind.LINKS: ("clone",),
    Kind.SQL_NAMES: ("clone",),
    Kind.SQL_VIEWS: ("probe",),
}
"""What `make test` has of them: the gravest. A run costs, and a case in it nothing."""
SHORT_ALONE = frozenset({("endless-body", "health-check")})


@dataclass(frozen=True)
class Case:
    """One plant in one run of one operation."""

    plant: Plant
    operation: str

    @property
    def id(self) -> str:
        return f"{self.operation}-{self.plant.slug}"

    @property
    def alone(self) -> Plant | None:
        return self.plant if self.plant.kind in ALONE else None

    @property
    def is_short(self) -> bool:
        if self.alone:
            return (self.plant.name, self.operation) in SHORT_ALONE
        return self.operation in SHORT.get(self.plant.kind, ())


def _cases() -> tuple[Case, ...]:
    """One trial after the other."""
    kinds = {kind: [plant for plant in PLANTS if plant.kind is kind] for kind in PAIRS}
    return tuple(
        Case(plant, operation) for kind, pairs in PAIRS.items() for operation in pairs for plant in kinds[kind]
    )


CASES = _cases()


def met(operation: Operation) -> set[Kind]:
    """The kinds of plants that an operation meets."""
    return {case.plant.kind for case in CASES if OPERATIONS[case.operation] is operation}
