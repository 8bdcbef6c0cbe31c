"""What was seen to go wrong with real sites, as data: planted, done, and looked at; see `table.py`."""

import pytest

from tests.lab.listener import Listener
from tests.lab.stand import Stand
from tests.shop.operations import OPERATIONS
from tests.shop.table import CASES, GROUPS, Case
from tests.shop.world import World

pytestmark = [pytest.mark.lab, pytest.mark.long]


class Worlds:
    """The site of each operation's cases, once the operation is over: run when the first of them is asked for."""

    def __init__(self, stand: Stand, outside: Listener) -> None:
        self._stand = stand
        self._outside = outside
        self._ended: dict[str, World | Exception] = {}

    def of(self, operation: str) -> World:
        if operation not in self._ended:
            world = World(self._stand, self._outside, GROUPS[operation])
            try:
                OPERATIONS[operation](world)
                self._ended[operation] = world
            except Exception as error:
                self._ended[operation] = error
        if isinstance(found := self._ended[operation], Exception):
            raise found
        return found


@pytest.fixture(scope="module")
def worlds(stand: Stand, outside: Listener) -> Worlds:
    return Worlds(stand, outside)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_a_case(worlds: Worlds, case: Case) -> None:
    assert worlds.of(case.operation).wrong(case) == []
