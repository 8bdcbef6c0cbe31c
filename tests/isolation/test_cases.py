"""A hacked site's plants, and everything that Trueup does to the site: nothing gets out, and all comes to an end.

`cases.py` is the table. Each case is told of its own: its plant gave nothing of the node, a neighbour or the control
plane to the site, wrote nothing there, and did not hold the operation up. What concerns a run as a whole (a clear end,
memory, a neighbour's visitors) is told once for each run.
"""

import pytest

from tests.isolation.cases import ALONE, CASES, SUCCEED, Case
from tests.isolation.plants import Kind, Plant
from tests.isolation.trial import Trials

pytestmark = pytest.mark.lab


def _marked(case: Case) -> list[pytest.MarkDecorator]:
    return [] if case.is_short else [pytest.mark.long]


RUNS = {(case.plant.kind, case.operation, case.alone): case for case in CASES}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id, marks=_marked(case)) for case in CASES])
def test_a_plant(trials: Trials, case: Case) -> None:
    outcome = trials.of(case.plant.kind, case.operation, case.alone)
    assert outcome.of(case.plant) == [], str(outcome)


@pytest.mark.parametrize(
    ("kind", "operation", "plant"),
    [
        pytest.param(*run, id=f"{run[1]}-{run[2].slug if run[2] else run[0]}", marks=_marked(case))
        for run, case in RUNS.items()
    ],
)
def test_a_run_as_a_whole(trials: Trials, kind: Kind, operation: str, plant: Plant | None) -> None:
    outcome = trials.of(kind, operation, plant)
    assert [*outcome.wrong, *outcome.broken] == [], str(outcome)
    assert "planted" in outcome.planted.values(), f"nothing could be planted: {outcome.planted}"
    if (kind, operation) in SUCCEED:
        assert [end for end in outcome.ends if not end.succeeded] == [], str(outcome)
    assert (plant is not None) == (kind in ALONE)
