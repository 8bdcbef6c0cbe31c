"""Looks at environments, and remembers what was found of the release that each is to have."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import structlog

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import NodeUnreachable
from reconciler.core.fleet import Fleet
from reconciler.core.observed import ObservedHealth
from reconciler.core.visible import visible
from reconciler.loop.tools import Tools
from reconciler.nodes.health import look
from reconciler.records.outcomes import Outcome, Succeeded

log = structlog.get_logger()
_LONGEST = 1_000


def watch(node_id: UUID, environments: Iterable[str], tools: Tools) -> Outcome:
    """Ask a node which of these environments serve, and remember it. One that does not answer tells nothing."""
    fleet = tools.state.fleet()
    node = fleet.nodes.get(node_id)
    wanted = [one for id_ in environments if (one := fleet.environments.get(UUID(id_)))]
    if node is None or node.stalled or not wanted:
        return Succeeded()
    try:
        longest = max(fleet.health_timeout_s(one) for one in wanted)
        found = look(tools.connections, tools.target(node), [one.id for one in wanted], longest)
    except NodeUnreachable as error:
        return Succeeded({"unreachable": error.message})
    for environment in wanted:
        remember(environment, found[environment.id], fleet, tools, alone=False)
    return Succeeded({str(id_): one.health for id_, one in found.items()})


def remember(environment: EnvironmentEntry, found: ObservedHealth, fleet: Fleet, tools: Tools, *, alone: bool) -> None:
    """Keep what was found of the declared release; of another one that is served, nothing can be said."""
    release_id = fleet.release_id(environment)
    # It goes into the log, into messages and into a commit's: on one line.
    found = found.model_copy(update={"reason": found.reason and visible(found.reason, _LONGEST)})
    if found.release and found.release != str(release_id):
        found = ObservedHealth(release=found.release, health="unknown", reason="Another release is served.")
    before = tools.state.records.health.save(environment.id, release_id, found, tools.clock(), alone=alone)
    if before is None or before.health != found.health:
        say = log.warning if found.health == "unhealthy" else log.info
        say("health", environment=environment.key, health=found.health, release=str(release_id), reason=found.reason)
