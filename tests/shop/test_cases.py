"""What was seen to go wrong with real sites, as data: planted, done, and looked at; see `table.py`."""

from collections.abc import Callable
from functools import cache

import pytest

from tests.lab.listener import Listener
from tests.lab.stand import Stand
from tests.shop.operations import OPERATIONS
from tests.shop.table import CASES, GROUPS, Case
from tests.shop.world import World

pytestmark = [pytest.mark.lab, pytest.mark.long]


@pytest.fixture(scope="module")
def world_of(stand: Stand, outside: Listener) -> Callable[[str], World]:
    """The site of all cases of an operation, once the operation is over: done when the first of them asks."""

    @cache
    def done(operation: str) -> World:
        world = World(stand, outside, GROUPS[operation])
        OPERATIONS[operation](world)
        return world

    return done


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_a_case(world_of: Callable[[str], World], case: Case) -> None:
    assert world_of(case.operation).wrong(case) == []
