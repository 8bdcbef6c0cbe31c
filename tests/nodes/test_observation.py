"""Observation of real nodes: answers, nonsense, silence; and that one silent node holds up nobody."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.nodes.connection import Connections
from reconciler.nodes.observation import observe
from reconciler.nodes.target import Target
from tests.lab import Lab, Node
from tests.lab.fixtures import MakeNode

pytestmark = pytest.mark.lab

NOW = datetime(2030, 1, 2, tzinfo=UTC)
ANSWER = {"observed_at": "2030-01-01T00:00:00Z", "hostname": "x"}
ECHO = f"import sys, json; print(json.dumps({{**{ANSWER!r}, 'hostname': sys.argv[1]}}))".encode()


@pytest.fixture(scope="module")
def connections() -> Iterator[Connections]:
    with Connections() as connections:
        yield connections


@pytest.fixture
def target(bare_node: Node, lab: Lab) -> Target:
    return Target(bare_node.name, bare_node.address, 22, "root", bare_node.host_key, lab.private_key_file)


def reason(connections: Connections, target: Target, probe: str, timeout_s: float = 120) -> str:
    answer = observe(connections, [target], now=NOW, probe=probe.encode(), timeout_s=timeout_s)[target.name]
    assert isinstance(answer, Unreachable)
    assert answer.since == NOW
    return answer.reason


def test_options_reach_the_probe_and_the_answer_comes_back(connections: Connections, target: Target) -> None:
    asked = {"deep": True, "environments": ["a'b"], "since": NOW}
    answer = observe(connections, [target], now=NOW, probe=ECHO, **asked)[target.name]  # type: ignore[arg-type]
    assert isinstance(answer, ObservedNode)
    assert json.loads(answer.hostname) == {**asked, "since": NOW.timestamp()}


def test_no_environments_is_not_all_environments(connections: Connections, target: Target) -> None:
    answers = [
        observe(connections, [target], now=NOW, environments=asked, probe=ECHO)[target.name] for asked in (None, [])
    ]
    assert [json.loads(answer.hostname)["environments"] for answer in answers] == [None, []]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        ("print('hello')", "cannot be understood"),
        ("", "cannot be understood"),
        ("print('{\"hostname\": 1}')", "cannot be understood: observed_at Field required"),
        ("print('x' * 40_000_000)", "answered with more than 16384 KiB"),
        ("raise SystemExit('no /etc/trueup')", "ended with status 1 and said: no /etc/trueup"),
        ("import os; os.kill(os.getpid(), 11)", "status 139"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "cannot be understood"),
    ],
)
def test_what_is_no_answer_is_unreachable_and_says_why(
    connections: Connections, target: Target, probe: str, why: str
) -> None:
    assert why in reason(connections, target, probe)


@pytest.mark.long
def test_what_does_not_end_is_unreachable_and_says_so(connections: Connections, target: Target) -> None:
    said = reason(connections, target, "import time; time.sleep(600)", timeout_s=5)
    assert "did not end a command within 5 s" in said


def test_a_silent_node_holds_up_nobody(connections: Connections, target: Target, make_node: MakeNode, lab: Lab) -> None:
    node = make_node("nn-silent")
    silent = Target(node.name, node.address, 22, "root", node.host_key, lab.private_key_file)
    wrong = dataclasses.replace(target, name="wrong-key", host_key=node.host_key)
    closed = dataclasses.replace(target, name="closed", port=2)
    more = [dataclasses.replace(silent, name=f"silent-{number}") for number in range(3)]
    node.freeze("link")
    began = time.monotonic()
    alone = observe(connections, [silent], now=NOW, probe=ECHO)
    middle = time.monotonic()
    answers = observe(connections, [silent, *more, target, wrong, closed], now=NOW, probe=ECHO)
    assert time.monotonic() - middle < 2 * (middle - began), "they are waited for together"
    assert isinstance(alone[node.name], Unreachable)
    assert isinstance(answers[target.name], ObservedNode)
    reasons = {name: answer.reason for name, answer in answers.items() if isinstance(answer, Unreachable)}
    assert reasons.keys() == {node.name, *(one.name for one in more), "wrong-key", "closed"}
    assert all("does not answer" in reasons[one.name] for one in (silent, *more))
    assert "another host key" in reasons["wrong-key"]
    assert "refuses connections" in reasons["closed"]
