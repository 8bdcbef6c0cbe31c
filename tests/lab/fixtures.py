"""Decides when a test gets a real node: skipped where the lab cannot run, failed there when the lab is required.

Nodes go with the test or session that asked for them. What a killed pytest leaves is swept by the next Lab.
"""

import atexit
import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.lab.doctor import problems
from tests.lab.image import ensure_image
from tests.lab.lab import Lab
from tests.lab.node import Node

MakeNode = Callable[..., Node]


@functools.cache
def _obstacle() -> str | None:
    """Why the lab cannot run here, in one line."""
    found = problems()
    return "; ".join(f"{p.subject}: {p.fact} {p.advice}".strip() for p in found) or None


def _require_lab() -> None:
    reason = _obstacle()
    if reason is None:
        return
    if os.environ.get("TRUEUP_REQUIRE_LAB") == "1":
        pytest.fail(f"The lab is required and cannot run: {reason}", pytrace=False)
    pytest.skip(f"lab: {reason}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test is set up."""
    if item.get_closest_marker("lab"):
        _require_lab()


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab, with its image built (with progress on the terminal) if this machine has none yet."""
    _require_lab()
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        ensure_image()
    lab = Lab()
    atexit.register(lab.close)
    yield lab
    lab.close()
    atexit.unregister(lab.close)


@pytest.fixture
def make_node(lab: Lab) -> Iterator[MakeNode]:
    """`make_node(hint="web", authorized_key=…, snapshot=…)`: a node for this test, under a name used by no other."""
    made: list[Node] = []

    def make(hint: str = "node", authorized_key: str | None = None, *, snapshot: str | None = None) -> Node:
        node = lab.up(unique_name(hint), authorized_key, snapshot=snapshot)
        made.append(node)
        return node

    yield make
    for node in made:
        node.down()


@pytest.fixture(scope="session")
def bare_node(lab: Lab) -> Iterator[Node]:
    """One unprovisioned server for the whole session: read from it, leave it as it was."""
    node = lab.up(unique_name("bare"))
    yield node
    node.down()


def unique_name(hint: str) -> str:
    return f"{hint}-{secrets.token_hex(3)}"
