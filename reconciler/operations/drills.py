"""How the last drills of backups went, as the records know. Asks no node."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from reconciler.core.drills import LastDrill
from reconciler.records.backups import Backup
from reconciler.state import Records, State


def drill_key(environment_id: UUID) -> str:
    """The dedupe key of all drills of an environment's backups, and of nothing else."""
    return f"drill:{environment_id}"


def last_drills(records: Records) -> dict[UUID, LastDrill]:
    """Of each environment whose backups were drilled, the last one."""
    found = {id_: drill_of_backup(backup) for id_, backup in records.backups.last_drills().items()}
    return {id_: drill for id_, drill in found.items() if drill}


def last_full_drill(records: Records, environment_id: UUID) -> LastDrill | None:
    """The last of a full backup, also of one that is kept no longer."""
    full = [one for one in records.backups.of(environment_id) if one.backup_scope == "full"]
    drills = [drill for drill in map(drill_of_backup, full) if drill]
    return max(drills, key=lambda one: one.at, default=None)


def drill_of_backup(backup: Backup) -> LastDrill | None:
    """How the backup's own last drill went."""
    if backup.drilled_at is None:
        return None
    return LastDrill(backup.drilled_at, backup.drill_status == "passed", backup.drill_error)


def failed_drills(state: State) -> list[dict[str, Any]]:
    """The declared environments whose last drill failed: ``environment backup drilled_at error``."""
    fleet = state.fleet()
    return [
        {
            "environment": fleet.environments[id_].key,
            "backup": str(one.id),
            "drilled_at": one.drilled_at.isoformat(timespec="seconds") if one.drilled_at else None,
            "error": one.drill_error,
        }
        for id_, one in state.records.backups.last_drills().items()
        if one.drill_status == "failed" and id_ in fleet.environments
    ]
