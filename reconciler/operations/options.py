"""What was set in WordPress since an option was declared: taken into Git, or set back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from reconciler.core.intents import Adopt, AdoptOptions, refuse_unready
from reconciler.core.jobs import JobType
from reconciler.core.options import changed_options
from reconciler.operations.declaring import Actor, Declarations, target_of
from reconciler.operations.gates import refuse_without_changes
from reconciler.state import State


def adoption(environment_id: UUID, state: State, new_id: Callable[[], UUID]) -> Adopt | AdoptOptions:
    """What declares all that the last drift check found changed: options alone need no release.

    Raises:
        Conflict: it found nothing, or does not hold any more.
    """
    has_code, found = refuse_without_changes(environment_id, state), options_found(environment_id, state)
    if has_code:
        return Adopt(environment_id=environment_id, release_id=new_id(), options=found)
    return AdoptOptions(environment_id=environment_id, options=found)


def options_found(environment_id: UUID, state: State) -> dict[str, str | None]:
    """The declared options that the last drift check found changed, with what it found."""
    check = state.records.drift_checks.latest(environment_id)
    return changed_options(check.differences) if check else {}


def set_back(environment_id: UUID, state: State, declarations: Declarations, now: datetime, actor: Actor) -> UUID:
    """A full backup, then the options are what Git says; the job's id. Git says so already, so nothing is declared."""
    fleet = state.fleet()
    refuse_unready(fleet.environment(environment_id), declarations.statuses(), now)
    target = target_of(fleet, environment_id)
    details = {"options": sorted(options_found(environment_id, state))}
    return declarations.enqueue(JobType.DRIFT_DISCARD, target, actor, deliberate=True, details=details)
