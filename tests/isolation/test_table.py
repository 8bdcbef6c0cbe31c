"""The table of cases is whole: an operation that is new meets the hostile site before anybody uses it."""

import re
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from reconciler.core.jobs import JobType
from tests.isolation.cases import CASES, PAIRS, SHORT, met
from tests.isolation.operations import OPERATIONS
from tests.isolation.plants import PLANTS, Kind

CONTRACT = Path(__file__).parents[2] / "contracts" / "openapi.yaml"
WRITES = {"post", "put", "patch", "delete"}
PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
SEEN: Mapping[int, str] = {
    1: "clone-sql-names-column",
    2: "probe-sql-views-options",
    3: "reconcile-swapped-plugins-are-core",
    5: "clone-races-busy-neighbour",
    8: "drift-check-specials-fifo",
    9: "health-check-pages-endless-body",
    14: "drift-check-names-escape",
}
"""What was seen of hacked sites before there was this suite, to the case that has it. Of the others 4, 10 and 13 are in
`test_services.py`, 6, 7 and 10 in `test_processes.py`; 11 and 12 are no site's doing.
"""
ROUTES: Mapping[str, str] = {
    "create_site": "create-beside",
    "remove_site": "remove-site",
    "create_environment": "clone",
    "import_site": "import",
    "reset_site": "reset",
    "remove_environment": "remove",
    "reset_environment": "reset",
    "check_drift": "drift-check",
    "adopt_drift": "adopt",
    "propose_adoption": "adopt",
    "discard_drift": "discard",
    "deploy": "deploy",
    "roll_back": "rollback",
    "update": "updates",
    "search_replace": "search-replace",
    "restore": "restore",
    "promote": "promote",
    "set_cache": "cache",
    "purge_cache": "purge",
    "check_health": "health-check",
    "magic_login": "login",
    "release_held": "release",
    "create_backup": "backup",
    "drill_backup": "drill",
    "add_domain": "domains",
    "remove_domain": "domains",
    "make_drift_report": "drift-check",
}
"""What the API can be asked to do, to the operation that does it here."""
NO_SITE = {"login", "logout", "cancel_job", "upload", "hook"}
"""What concerns no site's code, files or rows."""
ELSEWHERE: dict[str, str] = {}
"""Operations that meet no plant of the table, and where they meet a hacked site instead."""


def test_every_job_type_is_an_operation_here() -> None:
    named = {job_type for operation in OPERATIONS.values() for job_type in operation.job_types}
    assert set(JobType) - named == set(), "add an operation to operations.py, and pairs with it to cases.py"


def test_every_playbook_is_run_by_an_operation_here() -> None:
    named = {name for operation in OPERATIONS.values() for name in operation.playbooks}
    assert {path.name for path in PLAYBOOKS.glob("*.yml")} - named == set(), "add it to an operation in operations.py"


def test_every_route_that_changes_something_is_an_operation_here() -> None:
    document = YAML(typ="safe").load(CONTRACT.read_text())
    asked = {
        one["operationId"] for path in document["paths"].values() for method, one in path.items() if method in WRITES
    }
    assert asked - NO_SITE == set(ROUTES), "add an operation to operations.py, pairs with it to cases.py, and its route"
    assert set(ROUTES.values()) <= set(OPERATIONS)


def test_every_operation_meets_a_plant() -> None:
    missing = {name for name, operation in OPERATIONS.items() if not met(operation)}
    assert missing == set(ELSEWHERE)


def test_every_plant_meets_an_operation() -> None:
    assert {case.plant for case in CASES} == set(PLANTS)
    assert set(PAIRS) == set(Kind)
    assert {operation for pairs in PAIRS.values() for operation in pairs} <= set(OPERATIONS)
    assert all(set(short) <= set(PAIRS[kind]) for kind, short in SHORT.items())


def test_cases_have_names_of_their_own_and_are_many() -> None:
    ids = [case.id for case in CASES]
    assert len(set(ids)) == len(ids) >= 150
    assert len({plant.slug for plant in PLANTS}) == len(PLANTS)
    assert [plant for plant in PLANTS if not re.fullmatch("[a-z0-9-]+", plant.slug)] == []


def test_what_was_seen_has_its_case() -> None:
    assert set(SEEN.values()) <= {case.id for case in CASES}


def test_the_gravest_is_in_every_run() -> None:
    short = {case.id for case in CASES if case.is_short}
    gravest = {"clone-links-root-file", *(SEEN[number] for number in (1, 2, 9))}
    assert gravest <= short
