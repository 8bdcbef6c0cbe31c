"""What was seen to go wrong with real sites, as data: planted, done, and looked at; see `table.py`."""

import pytest

from tests.lab.listener import Listener
from tests.lab.stand import Stand
from tests.shop.operations import OPERATIONS
from tests.shop.table import CASES, GROUPS, Case
from tests.shop.world import World

pytestmark = [pytest.mark.lab, pytest.mark.long]

# pytest keeps what a fixture made for as long as its parameter is the same object.
NAMES = {name: name for name in GROUPS}


@pytest.fixture(scope="module")
def world(stand: Stand, outside: Listener, request: pytest.FixtureRequest) -> World:
    """The site of all cases of an operation, once the operation is over."""
    world = World(stand, outside, GROUPS[request.param])
    OPERATIONS[request.param](world)
    return world


@pytest.mark.parametrize(
    ("world", "case"), [pytest.param(NAMES[case.operation], case, id=case.id) for case in CASES], indirect=["world"]
)
def test_a_case(world: World, case: Case) -> None:
    assert world.wrong(case) == []
