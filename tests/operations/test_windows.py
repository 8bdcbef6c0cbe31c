"""A window that is closed holds the loop back, and nobody else."""

import json
from typing import Any

import pytest

from tests.controlplane import until
from tests.place import Place

pytestmark = pytest.mark.lab

KEY = "windowed/production"


def _plan(place: Place) -> Any:
    return json.loads(place.plane.command("plan", KEY, "-o", "json").stdout)


def _looks(place: Place) -> None:
    """Return when the loop has looked at the nodes twice more and done what followed."""
    with place.plane.opened() as home:
        ids = [node.id for node in home.state.fleet().nodes.values()]

        def seen() -> list[Any]:
            return [home.records.observations.latest(id_) for id_ in ids]

        for _ in range(2):
            before = seen()
            until(lambda b=before: all(now != then for now, then in zip(seen(), b, strict=True)), "a look", 150)


@pytest.mark.long
def test_the_loop_waits_and_a_person_does_not(place: Place) -> None:
    environment = place.make_site("windowed")
    place.close("windowed")
    place.touch_block(environment)
    [step] = _plan(place)["steps"]
    assert (step["verdict"], step["target"]) == ("waiting", KEY)
    assert "`* * * * *`" in step["reason"]
    _looks(place)
    assert place.is_touched(environment), "the loop waits"

    refused = place.plane.cli("apply", KEY, "--yes", "--require", "0" * 64)
    assert (refused.exit_code, place.is_touched(environment)) == (1, True)
    done = place.plane.cli("apply", KEY, "--yes", "--require", _plan(place)["digest"])
    assert (done.exit_code, place.is_touched(environment)) == (0, False), done.output

    place.touch_block(environment)
    place.open("windowed")
    until(lambda: not place.is_touched(environment), "the loop to heal it", told=place.plane.log)
    assert place.page(environment).status_code == 200
