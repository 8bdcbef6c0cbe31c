"""Which nodes are to be given the wildcard now, and from which it is to be taken, decided from what is known."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from reconciler.certificates.kept import Delivery, Notes, Wildcard
from reconciler.core.entries import NodeEntry
from reconciler.core.fleet import Fleet
from reconciler.core.policy import ReconcileMode, closed, effective_mode
from reconciler.records.observations import Observation

TAKEN_BACK = "none"


def is_to_be_given(
    node: NodeEntry, wildcard: Wildcard, notes: Notes, observation: Observation | None, now: datetime
) -> bool:
    """Whether an active node lacks it, and may be touched: not on hold, not paused, and no failure is waited out.

    A certificate that is new to the node, or due to be looked at, is brought in any other mode, as a node renews its
    domains' in any. What somebody changed on the node is put right as everything else is: where the mode is
    ``enforce``, within its windows.
    """
    reconcile, seen = node.manifest.spec.reconcile, observation.observed if observation else None
    failure, given = notes.refused.get(str(node.id)), notes.delivered.get(str(node.id))
    mode = effective_mode(reconcile, now)
    if seen is None or seen.hold is not None or mode is ReconcileMode.PAUSED:
        return False
    if failure and failure.holds_back(wildcard.fingerprint, now):
        return False
    if given is None or not given.holds(wildcard.fingerprint, node.manifest.spec.ssh.host_key, now):
        return True
    heals = mode is ReconcileMode.ENFORCE and closed(reconcile.windows, now) is None
    return heals and drift(given, observation) is not None


def drift(given: Delivery, observation: Observation | None) -> str | None:
    """What was changed on a node since it was given it, in words for a person; None: nothing, or nobody has looked."""
    if observation is None or observation.unreachable or observation.checked_at <= given.at:
        return None
    seen = observation.observed
    if seen is None:
        return None
    if seen.preview is None or seen.preview.fingerprint != given.fingerprint:
        return "it is not there any more" if seen.preview is None else "another one is there"
    return f"changed on the node: {', '.join(seen.preview.altered)}" if seen.preview.altered else None


def to_be_taken_from(fleet: Fleet, notes: Notes, now: datetime, *, wanted: bool) -> list[str]:
    """Ids of nodes that may have it and should not: all of them where none is ``wanted``, else the decommissioned."""

    def has_to_go(node_id: str) -> bool:
        node, failure = fleet.nodes.get(UUID(node_id)), notes.refused.get(node_id)
        if node is None or node.stalled or (failure and failure.holds_back(TAKEN_BACK, now)):
            return False
        return not wanted or node.manifest.spec.state != "active"

    return [node_id for node_id in sorted(notes.holders) if has_to_go(node_id)]
