"""Drills of backups: when an environment's newest one is due to be tried, and how long a drill counts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode
from reconciler.core.manifests import Drill, DrillEvery

DAY = timedelta(days=1)
PERIODS = {DrillEvery.DAILY: DAY, DrillEvery.WEEKLY: 7 * DAY, DrillEvery.MONTHLY: 30 * DAY}
GRACE = DAY
"""How much longer than its period a drill counts: the next one may have to wait for its node."""
AGAIN = timedelta(hours=1)
"""How long after a drill that was cancelled, mostly because something else was asked for, the next one is due."""
VERDICTS = frozenset(
    {
        JobErrorCode.DRILL_FAILED,
        JobErrorCode.BACKUP_DAMAGED,
        JobErrorCode.CONTENT_UNMOVABLE,
        JobErrorCode.CONTENT_TOO_LARGE,
        JobErrorCode.DATABASE_UNUSABLE,
    }
)
"""How a drill ends that says something about the backup; any other failure says something about the node."""
OUT_OF_TIME = frozenset({JobErrorCode.JOB_TIMEOUT, JobErrorCode.ANSIBLE_TIMEOUT})
"""It is told like a failed one, and its backup is none the worse for it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class LastDrill:
    """How the last drill of an environment's backups went. ``error``: why it failed, for a person."""

    at: datetime
    passed: bool
    error: str | None = None
    backup_id: str | None = None
    """None: nobody said."""


@dataclass(frozen=True)
class Drillable:
    """What of an environment's completed backups says when to drill."""

    first_completed_at: datetime
    """Of the oldest that is kept."""
    newest_passed: bool
    """Whether the newest of them passed a drill already."""
    asked_at: datetime | None
    """When a drill was last asked for or ended; None: never, as far as it is known. One that was cancelled is none."""
    cancelled_at: datetime | None = None
    """When the last one that was cancelled ended so."""


def drill_of(environment: EnvironmentEntry, fleet: Fleet) -> Drill:
    """What the environment's document says, else the platform's."""
    declared, own = fleet.platform.spec.backups, environment.manifest.spec.backups.drill
    return (declared.drill if declared else Drill()).model_copy(update=own.model_dump(exclude_none=True))


def within(drill: Drill) -> timedelta | None:
    """How long ago a promotion's target may have been drilled; None where no drill is asked for.

    Who never has it done by the clock does it by hand: that counts for a week.
    """
    if not drill.required_for_promotion:
        return None
    return PERIODS.get(drill.every, PERIODS[DrillEvery.WEEKLY]) + GRACE


def is_due(environment_id: UUID, every: DrillEvery, known: Drillable, now: datetime) -> bool:
    """Whether the newest backup is to be drilled now.

    Each environment has its own moment in the period, so that a fleet's drills are spread over all of it. What passed
    is not tried again, and nothing is in the first day after an environment's first backup.
    """
    period = PERIODS.get(every)
    if period is None or known.newest_passed:
        return False
    # What a clock has written that was ahead once says nothing.
    if known.cancelled_at and known.cancelled_at <= now < known.cancelled_at + AGAIN:
        return False
    asked_at = known.asked_at if known.asked_at and known.asked_at <= now else None
    first_day = known.first_completed_at + DAY if known.first_completed_at <= now else now - DAY
    # One that never had any is due at its next moment; after an upgrade, not the whole fleet at once.
    since = asked_at or max(first_day, now - DAY)
    return _moment_after(environment_id, period, since) <= now


def _moment_after(environment_id: UUID, period: timedelta, since: datetime) -> datetime:
    """The environment's first moment after ``since``."""
    length = int(period.total_seconds())
    passed = int((since - _EPOCH).total_seconds())
    return since + timedelta(seconds=(environment_id.int - passed) % length or length)
