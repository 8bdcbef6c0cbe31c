"""What follows from an environment's health: when it is looked at, and whether Trueup goes back by itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.manifests import Release
from reconciler.core.observed import ObservedHealth, ObservedNode
from reconciler.core.policy import ReconcileMode, effective_mode, in_force


class Known(Protocol):
    """What is remembered of one release."""

    @property
    def found(self) -> ObservedHealth: ...
    @property
    def left_for(self) -> UUID | None: ...


def is_due(environment_id: UUID, checked_at: datetime | None, every: timedelta, now: datetime) -> bool:
    """Whether the environment's moment came since it was last looked at.

    Each has a moment of its own within the interval, so that a node's environments are not asked all at once.
    """
    if checked_at is None:
        return True
    seconds = every.total_seconds()
    offset = environment_id.int % 86_400 % seconds
    return (now.timestamp() - offset) // seconds > (checked_at.timestamp() - offset) // seconds


def way_back(  # noqa: PLR0911 (one a reason)
    environment: EnvironmentEntry, release_id: UUID, known: Mapping[UUID, Known], node: ObservedNode, now: datetime
) -> UUID | str:
    """The release to go back to from an unhealthy one, or in words why it is left to people.

    ``known``: what is remembered of the environment's releases, this one among them.
    """
    found = known[release_id].found
    reconcile = environment.manifest.spec.reconcile
    mode = effective_mode(reconcile, now)
    if mode is not ReconcileMode.ENFORCE:
        return f"spec.reconcile.mode is {mode}."
    if hold := next((one for one in in_force(reconcile.holds, now) if one.field == "release"), None):
        return f"{hold.owner} holds the release: {hold.reason}"
    if node.hold is not None:
        return f"The node is on hold: {node.hold}."
    if found.checks.get("database"):
        return "The database does not answer, and would not answer another release."
    if found.alone:
        return "Its code makes the page when PHP is asked directly: the fault is elsewhere."
    if _came_with_content(environment.manifest.spec.release):
        return "Its code came together with its content. Restore a backup, or correct it."
    if found.previous is None:
        return "The node has no earlier release."
    if not found.previous.answers:
        return f"The release before it, {found.previous.release}, does not make the page either."
    previous = UUID(found.previous.release)
    if known[release_id].left_for or (previous in known and known[previous].left_for):
        return f"Trueup went from one of the two to the other already: {release_id}, {previous}."
    return previous


def _came_with_content(release: Release | None) -> bool:
    return release is not None and release.origin not in {None, "update", "adopt", "discard"}
