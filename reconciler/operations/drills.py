"""How the last drills of backups went, as the records know. Asks no node."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from reconciler.core.drills import OUT_OF_TIME, LastDrill, drill_of
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobStatus, JobType
from reconciler.records.backups import Backup
from reconciler.records.jobs import JobFilter, only_clears
from reconciler.state import Records, State

MOST = 1000
LATE = "It ran out of time, so nothing is known of the backup. Give jobs more of it with TRUEUP_JOB_TIMEOUT_S."
_RAN_OUT = JobFilter(
    statuses=frozenset({JobStatus.FAILED}), job_types=frozenset({JobType.DRILL}), error_codes=OUT_OF_TIME
)


def drill_key(environment_id: UUID) -> str:
    """The dedupe key of all drills of an environment's backups, and of nothing else."""
    return f"drill:{environment_id}"


def backup_to_drill(environment: EnvironmentEntry, fleet: Fleet, records: Records, now: datetime) -> Backup | None:
    """The environment's newest completed backup; the newest full one, where promotions ask for a drill of one."""
    newest = records.backups.newest(environment.id, now)
    if not drill_of(environment, fleet).required_for_promotion:
        return newest
    return records.backups.newest_full(environment.id, now) or newest


def last_drills(records: Records, now: datetime) -> dict[UUID, LastDrill]:
    """Of each environment whose backups were drilled, the last one; also one that ran out of time, as failed.

    One that is yet to come was written by a clock that was ahead, and is none.
    """
    known = {id_: drill_of_backup(backup) for id_, backup in records.backups.last_drills(now).items()}
    found = {id_: drill for id_, drill in known.items() if drill}
    for job in records.jobs.page(_RAN_OUT, limit=MOST).jobs:
        id_, at = job.environment_id, job.finished_at
        if id_ is None or at is None or at > now or only_clears(job) or (id_ in found and found[id_].at >= at):
            continue
        found[id_] = LastDrill(at, passed=False, error=LATE, backup_id=(job.result or {}).get("backup_id"))
    return found


def last_full_drill(records: Records, environment_id: UUID, now: datetime) -> LastDrill | None:
    """The last of a full backup, also of one that is kept no longer; none that is yet to come."""
    full = [one for one in records.backups.of(environment_id) if one.backup_scope == "full"]
    drills = [drill for drill in map(drill_of_backup, full) if drill and drill.at <= now]
    return max(drills, key=lambda one: one.at, default=None)


def drill_of_backup(backup: Backup) -> LastDrill | None:
    """How the backup's own last drill went."""
    if backup.drilled_at is None:
        return None
    return LastDrill(backup.drilled_at, backup.drill_status == "passed", backup.drill_error, str(backup.id))


def failed_drills(state: State, now: datetime) -> list[dict[str, Any]]:
    """The declared environments whose last drill failed: ``environment backup drilled_at error``."""
    fleet = state.fleet()
    return [
        {
            "environment": fleet.environments[id_].key,
            "backup": one.backup_id,
            "drilled_at": one.at.isoformat(timespec="seconds"),
            "error": one.error,
        }
        for id_, one in last_drills(state.records, now).items()
        if not one.passed and id_ in fleet.environments
    ]
