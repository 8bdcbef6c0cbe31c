"""A hacked node may say anything, at any pace: it is told of, it holds up nobody, and no plan breaks on it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.core.plan import decide
from reconciler.nodes.connection import Connections
from reconciler.nodes.health import look
from reconciler.nodes.observation import observe
from reconciler.nodes.target import Target
from tests.core import documents as d
from tests.core.fake_node import ROLES
from tests.core.test_node_answer import FLEET, IDS, KEYS, said, two, whole
from tests.nodes import hostile
from tests.nodes.hostile import Answer, hostile_node, says
from tests.proof import sampled

NOW = datetime(2030, 1, 2, tzinfo=UTC)
PATIENCE_S = 60.0
A, B = (IDS[key] for key in KEYS)


@pytest.fixture(scope="module")
def connections() -> Iterator[Connections]:
    with Connections() as connections:
        yield connections


SILENCED: dict[str, tuple[Answer, str | None]] = {
    "a byte at a time": (hostile.drips, None),
    "without end": (hostile.floods, "answered with more than 16384 KiB"),
    "complaints without end": (hostile.complains, "answered with more than 16384 KiB"),
    "an end that never comes": (hostile.never_ends, None),
    "no ear": (hostile.hears_nothing, None),
    "a failure with what a terminal obeys": (hostile.fails, r"said: \x1b[2J\u202egnp.exe"),
    "a name of 15 MB": (says(said(lambda one: one.update(hostname="x" * (15 << 20)))), "a text in it has more than"),
    "nothing": (says(b""), "cannot be understood: it is no JSON"),
}
"""How it ends what is asked, and what is said of it; None: it never ends, and is waited for in vain."""


@pytest.mark.parametrize("how", sampled(SILENCED))
def test_it_is_told_why_there_is_no_answer_and_the_others_answer(
    how: str, connections: Connections, tmp_path: Path
) -> None:
    answer, why = SILENCED[how]
    with hostile_node(tmp_path, "hacked", answer) as hacked, hostile_node(tmp_path, "well", says(said())) as well:
        patience_s = PATIENCE_S if why else enough_for(well, connections)
        found = observe(connections, [hacked, well], now=NOW, timeout_s=patience_s)
    silent, heard = found["hacked"], found["well"]
    assert isinstance(silent, Unreachable)
    assert (why or f"did not end a command within {patience_s:g} s") in silent.reason
    assert len(silent.reason) < 600
    assert silent.reason.isprintable()
    assert isinstance(heard, ObservedNode)
    assert set(heard.environments) == {A, B}


def enough_for(well: Target, connections: Connections) -> float:
    """Seconds in which this machine, as busy as it is now, hears one that answers, many times over."""
    began = time.monotonic()
    assert isinstance(observe(connections, [well], now=NOW)[well.name], ObservedNode)
    return 1 + math.ceil(10 * (time.monotonic() - began))


def test_an_id_that_is_none_breaks_no_plan(connections: Connections, tmp_path: Path) -> None:
    """Row 12: deciding crashed for the whole fleet."""
    fleet = d.fleet_of({**two(), "nodes/web-2.yaml": d.node("10.0.0.2")})
    answer = says(said(lambda one: one["environments"].update({"no-uuid": {"applied": None}})))
    with hostile_node(tmp_path, "web-2", answer) as hacked, hostile_node(tmp_path, "web-1", says(said())) as well:
        found = observe(connections, [hacked, well], now=NOW)
    plan = decide(fleet, found, ROLES, NOW)
    assert any(step.action.target == "web-2" for step in plan.steps)
    assert [one.node for one in plan.silent] == ["web-2"]


def test_a_health_answer_takes_nothing_from_the_others(connections: Connections, tmp_path: Path) -> None:
    ids = [FLEET.environments_by_key[key].id for key in KEYS]
    good = {"release": "r", "health": "healthy"}
    strange: list[Any] = [None, [], {"release": "r", "health": "worse"}, {**good, "reason": "x" * 100_000}]
    for one in (*strange, {**good, "previous": {"release": "no-uuid", "answers": True}}):
        answer = json.dumps({str(ids[0]): good, str(ids[1]): one, "more": one}).encode()
        with hostile_node(tmp_path, "hacked", says(answer)) as node:
            found = look(connections, node, ids)
        assert (found[ids[0]].health, found[ids[1]].health) == ("healthy", "unknown")
        assert len(found) == 2


def test_the_answer_of_the_test_is_the_one_of_a_node() -> None:
    assert set(whole()["environments"]) == {A, B}
