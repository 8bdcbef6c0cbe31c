"""Each kind of proof that the pages name is in `make test`: somewhere in its files is a test that is not long."""

import ast
from pathlib import Path

import pytest

from reconciler.core.jobs import JobType
from tests.test_docs import TOP, table

CONTRIBUTING, TESTING = ((TOP / name).read_text() for name in ("CONTRIBUTING.md", "docs/testing.md"))
PLAYBOOKS = table(TESTING, "Which playbook is proven where")
JOB_TYPES = table(TESTING, "Which job type is proven where")
KINDS = table(CONTRIBUTING, "What is proven")
LEFT = table(TESTING, "What is left to the long suite")
NAMED = sorted({word.strip(",") for *_, cell in KINDS + PLAYBOOKS + JOB_TYPES for word in cell.split() if "/" in word})


def _is_long(node: ast.expr) -> bool:
    return any(isinstance(one, ast.Attribute) and one.attr == "long" for one in ast.walk(node))


def short_tests(source: str) -> list[str]:
    """The tests of a module that `make test` runs. A parameter may be long; the test is then short by the others."""
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark" and _is_long(node.value):
            return []
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    short = [node.name for node in tests if "pytest.mark.long" not in map(ast.unparse, node.decorator_list)]
    machines = [ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)]  # Hypothesis's
    return short + [name for name in machines if name.startswith("Test")]


@pytest.mark.parametrize("path", NAMED)
def test_what_is_named_has_a_test_that_make_test_runs(path: str) -> None:
    place = TOP / path
    files = sorted(place.rglob("test_*.py")) if place.is_dir() else [place]
    assert any(short_tests(file.read_text()) for file in files if file.is_file()), f"{path} gives nothing"


def test_every_playbook_is_named() -> None:
    there = {f"`{path.name}`" for path in Path(TOP / "playbooks").glob("*.yml")}
    assert {playbook for playbook, _ in PLAYBOOKS} == there


def test_every_job_type_is_named() -> None:
    assert [job_type for job_type, _ in JOB_TYPES] == [f"`{one}`" for one in JobType]


def test_every_file_that_the_long_suite_has_more_of_is_named() -> None:
    signs = ("pytest.mark.long", "count(short=", "sampled(")
    files = [file for file in (TOP / "tests").rglob("test_*.py") if file.parent != Path(__file__).parent]
    more = {str(file.relative_to(TOP)) for file in files if any(sign in file.read_text() for sign in signs)}
    assert {name for name, *_ in LEFT} == more


def test_a_long_test_is_none_of_make_test() -> None:
    source = (
        "import pytest\n@pytest.mark.long\ndef test_a(): pass\n"
        "@pytest.mark.parametrize('x', [1, pytest.param(2, marks=pytest.mark.long)])\ndef test_b(x): pass\n"
    )
    assert short_tests(source) == ["test_b"]
    assert short_tests(f"{source}pytestmark = [pytest.mark.lab, pytest.mark.long]\n") == []
