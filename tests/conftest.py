"""What every test may ask for."""

import signal
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

from tests.proof import is_long

pytest_plugins = ["tests.lab.fixtures", "tests.proof.plugin", "tests.proof.alone", "tests.proof.closing", "pytester"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests with the same id, all but one would be left out without a word where several processes run them."""
    twice = [nodeid for nodeid, times in Counter(item.nodeid for item in items).items() if times > 1]
    if twice:
        raise pytest.UsageError(f"Several tests have the id {', '.join(twice)}. Give each its own.")


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """Before any module of tests is imported, and once it is known whether the run is the long one."""
    _made_up_examples()
    _signals()


def _made_up_examples() -> None:
    """How long an example takes says nothing of what is tested. In `make test` they are the same each time."""
    by_chance = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    settings.register_profile(
        "proof", deadline=None, suppress_health_check=by_chance, derandomize=not is_long(), database=None
    )
    settings.load_profile("proof")


def _signals() -> None:
    """A shell has what it starts in the background ignore these, and what tests start would inherit that."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
