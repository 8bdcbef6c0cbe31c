"""How much a run proves: `make test` gives every kind of proof once, `make test-long` gives all of it in full counts.

A test, a module or a parameter that only the long suite runs has the marker `long`. A test that does something many
times asks `count` how many; nothing else in the tests decides that.
"""

import os
from collections.abc import Iterable
from typing import Any

import pytest

ENVIRONMENT = "TRUEUP_TEST_LONG"
"""Set to 1 by `pytest --long` before it collects, for its workers and for the processes that tests start, too."""


def is_long() -> bool:
    return os.environ.get(ENVIRONMENT) == "1"


def count(*, short: int, full: int) -> int:
    """How often: ``short`` in `make test` and wherever a test is run by its name, ``full`` in `make test-long`."""
    return full if is_long() else short


def sampled(values: Iterable[Any], *, short: int = 1) -> list[Any]:
    """Parameters of one kind: the first ``short`` of them are in every run, the others in the long suite."""
    return [one if n < short else pytest.param(one, marks=pytest.mark.long) for n, one in enumerate(values)]
