"""The two gates of a promotion, held against what the records know. Asks no node."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from reconciler.core.jobs import JobType
from reconciler.core.promotion import UNCHANGING, Evidence, checked, refuse_unmet
from reconciler.records.jobs import JobFilter
from reconciler.state import Records, State

RECENT = 20
"""Jobs of an environment among which its last change is looked for: later ones may have ended earlier."""


def refuse_unmet_gates(source_id: UUID, target_id: UUID, state: State, now: datetime) -> None:
    """Raises DriftGateUnmet or BackupGateUnmet unless changes may move from the source to the target now."""
    fleet, records = state.fleet(), state.records
    check, backup = records.drift_checks.latest(source_id), records.backups.newest_full(target_id)
    evidence = Evidence(
        source=fleet.environment(source_id).key,
        target=fleet.environment(target_id).key,
        target_id=str(target_id),
        check=checked(check.created_at, check.differences) if check else None,
        last_change=_last_change(records, source_id),
        backup_at=backup.completed_at if backup else None,
    )
    refuse_unmet(evidence, now)


def _last_change(records: Records, environment_id: UUID) -> datetime | None:
    changing = frozenset(kind.value for kind in JobType if kind not in UNCHANGING)
    wanted = JobFilter(environment_id=environment_id, job_types=changing)
    jobs = records.jobs.page(wanted, limit=RECENT).jobs
    return max((job.finished_at or job.updated_at for job in jobs), default=None)
