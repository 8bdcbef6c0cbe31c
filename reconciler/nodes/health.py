"""Asks a node in one round trip which of its environments serve, with the code that ``playbooks/health.yml`` runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from reconciler.core.errors import NodeUnreachable
from reconciler.core.node_answer import AnswerRefused, read_object, understood
from reconciler.core.observed import ObservedHealth
from reconciler.core.visible import visible
from reconciler.nodes.connection import Connections
from reconciler.nodes.module_utils import PYTHON, carried
from reconciler.nodes.target import Target

PATIENCE_S = 300.0
"""Of one round trip: an environment whose every check hangs takes 51 s, and four are looked at side by side."""
MOST_PATIENCE_S = 1500.0
USUAL_TIMEOUT_S = 10
MOST_BYTES = 4 << 20


def look(
    connections: Connections, target: Target, environments: Iterable[UUID], timeout_s: int = USUAL_TIMEOUT_S
) -> Mapping[UUID, ObservedHealth]:
    """What was found, by environment id. ``timeout_s``: the longest that a check of one of them may take.

    Raises:
        NodeUnreachable: no answer, or none that can be understood.
    """
    asked = list(environments)
    program = carried("health", "look", [str(one) for one in asked])
    patience_s = min(MOST_PATIENCE_S, PATIENCE_S * max(1.0, timeout_s / USUAL_TIMEOUT_S))
    done = connections.run(target, PYTHON, stdin=program, timeout_s=patience_s, max_output_bytes=MOST_BYTES)
    try:
        data = read_object(done.stdout)
    except AnswerRefused as error:
        said = visible(done.stderr.decode(errors="replace").strip().rpartition("\n")[2], 300) or str(error)
        raise NodeUnreachable(f"{target} was asked whether its environments serve, and said: {said}") from error
    return {one: _of(data.get(str(one))) for one in asked}


def _of(said: Any) -> ObservedHealth:
    """What cannot be understood says nothing of this environment, and takes nothing from the others."""
    try:
        return understood(ObservedHealth, said)
    except AnswerRefused as error:
        return ObservedHealth(release="", health="unknown", reason=f"The node's answer cannot be understood: {error}")
