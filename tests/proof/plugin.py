"""Options of pytest that say which proof a run gives, and in which order."""

import importlib
import os
import random
from contextlib import suppress
from typing import Any

import pytest

from tests.proof import ENVIRONMENT, is_long
from tests.proof.weights import Weights, order, part_of

_SEED = "proof_seed"
TOGETHER = ("tests/isolation/", "tests/operations/", "tests/playbooks/")
"""Directories whose files share nodes, which `make test` boots once: one process runs all that it has of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("proof")
    group.addoption("--long", action="store_true", help="full counts: kills, mutations, races, examples")
    group.addoption("--part", type=_part, metavar="N/M", help="one of M parts, by file, of equal weight")
    group.addoption(
        "--shuffle", nargs="?", const=0, type=int, metavar="SEED", help="the tests of each file in any order"
    )


def _part(text: str) -> tuple[int, int]:
    number, _, parts = text.partition("/")
    if number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts):
        return int(number), int(parts)
    raise pytest.UsageError(f"--part is {text!r}. Give one such as 1/4.")


def pytest_configure(config: pytest.Config) -> None:
    """Before any module of tests is imported."""
    if config.option.long:
        os.environ[ENVIRONMENT] = "1"
    if config.option.shuffle == 0:
        config.option.shuffle = getattr(config, "workerinput", {}).get(_SEED) or random.SystemRandom().randrange(
            1, 1 << 31
        )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist's: a worker begins. All have to bring the tests into the same order."""
    node.workerinput[_SEED] = node.config.option.shuffle


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let the workers share what is to be compiled.

    All begin at once and collect all tests in the same order, so that each would compile every module of a fresh
    clone. Each imports its share first, and finds of the others what they have written meanwhile.
    """
    config = session.config
    worker = getattr(config, "workerinput", None)
    if worker is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    number, of = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    files = [one for path in config.args for one in sorted((config.rootpath / path).rglob("test_*.py"))]
    names = [".".join(one.relative_to(config.rootpath).with_suffix("").parts) for one in files]
    for name in names[number::of]:
        with suppress(Exception):  # whatever is wrong with it, its collection tells
            importlib.import_module(name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """xdist's: what one process runs is a file, or a directory whose files share nodes."""
    if is_long() or config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((top for top in TOGETHER if nodeid.startswith(top)), super()._split_scope(nodeid))

    return Together(config, log)


def pytest_report_header(config: pytest.Config) -> list[str]:
    said = [f"proof: {'full' if is_long() else 'short'} counts"]
    if config.option.part:
        said.append("part {}/{}".format(*config.option.part))
    if config.option.shuffle:
        said.append(f"shuffled within files; the same order again: --shuffle {config.option.shuffle}")
    return [", ".join(said)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before pytest brings together the tests that share a parametrized fixture.

    A file is run by one process, and who begins with the longest has none left in the end that others wait for.
    """
    weights = Weights.read("long" if is_long() else "short").of(map(_file, items))
    if config.option.part:
        ours = part_of(weights, *config.option.part)
        config.hook.pytest_deselected(items=[item for item in items if _file(item) not in ours])
        items[:] = [item for item in items if _file(item) in ours]
    if config.option.shuffle:
        items[:] = _shuffled(items, random.Random(config.option.shuffle))
    place = {name: number for number, name in enumerate(order(weights))}
    items.sort(key=lambda item: place[_file(item)])


def _shuffled(items: list[pytest.Item], dice: random.Random) -> list[pytest.Item]:
    """Those of a file whose order matters stay in it."""
    free = [item for item in items if not item.get_closest_marker("in_order")]
    dice.shuffle(free)
    return [*(item for item in items if item.get_closest_marker("in_order")), *free]


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]
