"""The table of cases is whole: what a case says is read, and no two say the same."""

import re

import pytest

from tests.shop.operations import OPERATIONS
from tests.shop.table import CASES, ELSEWHERE, GROUPS, KINDS, listed

LOOKS = {"option", "sql", "file", "job", "held", "calls", "said", "missing", "page"}
VERDICTS = {"is", "has", "lacks", "there", "unlike", "status", "header"}
PLACED = {"of", "lines", "sent"}
PLANTS = {"sql", "options", "posts", "rows", "files", "php"}
MORE = {"update", "during", "code", "submodules", "visited", "event"}


def test_each_operation_has_cases_and_each_file_an_operation() -> None:
    assert GROUPS.keys() == OPERATIONS.keys()
    assert [group.operation for group in GROUPS.values() if not group.cases] == []


def test_no_two_cases_have_one_name() -> None:
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("group", GROUPS)
def test_each_case_is_whole(group: str) -> None:
    for case in GROUPS[group].cases:
        assert case.kind in KINDS, case.id
        assert case.was.strip(), case.id
        assert case.expect, case.id
        assert case.more.keys() <= MORE, case.id
        for planted in case.planted.values():
            assert planted.keys() <= PLANTS, case.id
        for check in case.expect:
            assert len(check.keys() & LOOKS) == 1, (case.id, check)
            assert check.keys() <= LOOKS | VERDICTS | PLACED, (case.id, check)
            assert check.keys() & VERDICTS or "page" in check, f"{case.id} could not fail"


@pytest.mark.parametrize("group", GROUPS)
def test_no_case_makes_what_another_of_its_site_has(group: str) -> None:
    """They are planted together: a table, an option, a post or a file is one case's alone."""
    made: list[str] = []
    for case in GROUPS[group].cases:
        for planted in case.planted.values():
            own = {f"option {name}" for name in planted.get("options", {})}
            own |= {f"file {name}" for name in planted.get("files", {})}
            own |= {f"post {post['ID']}" for post in planted.get("posts", ())}
            own |= {f"table {name}" for name in re.findall(r"CREATE (?:TABLE|VIEW|FUNCTION) (\w+)", str(planted))}
            made += sorted(f"{case.name}: {one}" for one in own)
    names = {one.split(": ", 1)[1]: one.split(": ", 1)[0] for one in made}
    assert [one for one in made if names[one.split(": ", 1)[1]] != one.split(": ", 1)[0]] == []


def test_the_list_counts_what_is_elsewhere_too() -> None:
    lines = list(listed())
    heads = [line for line in lines if not line.startswith("  ")]
    numbers = [int(re.findall(r"\((\d+)\)", line)[0]) for line in heads[:-1]]
    assert sum(numbers) == len(CASES) + sum(more for _, more in ELSEWHERE.values())
    assert heads[-1].startswith(f"{sum(numbers)} cases: {len(CASES)} of {len(GROUPS)} operations")
    assert 0 not in numbers
