"""What must have been looked at first, held against what the records know. Asks no node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from reconciler.core.changes import changed_code
from reconciler.core.drills import drill_of, within
from reconciler.core.errors import Conflict, StorageNotConfigured
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobType
from reconciler.core.options import changed_options
from reconciler.core.promotion import UNCHANGING, Checked, Evidence, checked, refuse_unmet
from reconciler.nodes.module_utils import load
from reconciler.operations.drills import last_full_drill
from reconciler.records.jobs import JobFilter
from reconciler.state import Records, State

RECENT = 20
"""Jobs of an environment among which its last change is looked for: later ones may have ended earlier."""


def refuse_unmet_gates(
    source_id: UUID,
    target_id: UUID,
    state: State,
    now: datetime,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> None:
    """Raises one of a promotion's gates unless changes may move from the source to the target now.

    ``include``, ``exclude``: what was chosen; what was not blocks nothing.
    """
    fleet, records = state.fleet(), state.records
    # What is yet to come was written by a clock that was ahead: nobody knows how long ago it was.
    check, backup = records.drift_checks.latest(source_id, now), records.backups.newest_full(target_id, now)
    target = fleet.environment(target_id)
    evidence = Evidence(
        source=fleet.environment(source_id).key,
        target=target.key,
        target_id=str(target_id),
        check=_chosen(checked(check.created_at, check.differences), include, exclude) if check else None,
        last_change=_last_change(records, source_id),
        backup_at=backup.completed_at if backup else None,
        drill_within=within(drill_of(target, fleet)),
        drill=last_full_drill(records, target_id, now),
    )
    refuse_unmet(evidence, now)


def _chosen(check: Checked, include: Sequence[str], exclude: Sequence[str]) -> Checked:
    """The check with those conflicts that a promotion would meet: the node asks the same code."""
    selection = load("promotion/selection").Selection(include, exclude)
    conflicts = tuple(one for one in check.conflicts if selection.has(*one.split(": ", 1)))
    return replace(check, conflicts=conflicts)


def needs_storage(fleet: Fleet, what: str) -> None:
    """Raises StorageNotConfigured where there is no place for a backup."""
    if fleet.platform.spec.backups is None:
        raise StorageNotConfigured(f"{what} needs storage, and platform.yaml names none. Set spec.backups first.")


def refuse_without_changes(environment_id: UUID, state: State, *, core: bool = False) -> bool:
    """Whether the last drift check found changed code, of WordPress itself too with ``core``; else it found options.

    Raises:
        Conflict: it found neither, or does not hold any more.
    """
    key, check = state.fleet().environment(environment_id).key, state.records.drift_checks.latest(environment_id)
    changed = _last_change(state.records, environment_id)
    if check is None or (changed and changed > check.created_at):
        raise Conflict(f"{key} was not looked at since it changed. Run `trueup drift {key} --check` first.")
    has_code = bool(changed_code(check.differences, core=core))
    if not has_code and not changed_options(check.differences):
        raise Conflict(
            f"The last drift check of {key} found no code and no declared option that was changed on the node."
        )
    return has_code


def _last_change(records: Records, environment_id: UUID) -> datetime | None:
    changing = frozenset(kind.value for kind in JobType if kind not in UNCHANGING)
    wanted = JobFilter(environment_id=environment_id, job_types=changing)
    jobs = records.jobs.page(wanted, limit=RECENT).jobs
    return max((job.finished_at or job.updated_at for job in jobs), default=None)
