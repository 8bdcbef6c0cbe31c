"""One line of time for an environment: its commits, the releases that they declare, its jobs and its backups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from reconciler.core.actions import moment
from reconciler.core.entries import Document, EnvironmentEntry, Stalled
from reconciler.core.jobs import JobType
from reconciler.records.backups import Backup
from reconciler.records.jobs import Job, JobFilter, operator_of
from reconciler.state import State
from reconciler.store.history import Change

Kind = Literal["commit", "release", "job", "backup"]
_ORDER: tuple[Kind, ...] = ("commit", "release", "job", "backup")
"""Of what has the same second: a commit declares before a job does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """``id``: of the commit, the release, the job or the backup. ``jobs``: those that a commit declares."""

    at: datetime
    kind: Kind
    id: str
    what: str
    who: str | None = None
    outcome: str | None = None
    jobs: tuple[str, ...] = ()


def history_of(state: State, environment: EnvironmentEntry, limit: int) -> list[Moment]:
    """The latest ``limit`` moments, newest first. Ticks of the loop that changed nothing are left out."""
    wanted = JobFilter(environment_id=environment.id, ephemeral=False)
    moments = [
        *_committed(state.repository.changes(environment.path, limit + 1)),
        *(_worked(job) for job in state.records.jobs.page(wanted, limit).jobs),
        *(_kept(backup) for backup in state.records.backups.of(environment.id)),
    ]
    return sorted(moments, key=lambda one: (one.at, _ORDER.index(one.kind)), reverse=True)[:limit]


def _committed(changes: Iterable[tuple[Change, Document | Stalled | None]]) -> Iterator[Moment]:
    """Each commit, and a release wherever another one is declared than in the commit before."""
    later: tuple[Change, str | None] | None = None
    for change, document in changes:
        yield Moment(
            at=change.at, kind="commit", id=change.id, what=change.subject, who=change.author, jobs=change.jobs
        )
        release = declared_release(document)
        if later and later[1] and later[1] != release:
            yield _released(*later)
        later = change, release
    if later and later[1]:
        yield _released(*later)


def _released(change: Change, release: str | None) -> Moment:
    return Moment(at=change.at, kind="release", id=str(release), what=f"declared by {change.id[:9]}", who=change.author)


def declared_release(document: Document | Stalled | None) -> str | None:
    """The id of the release that the document names; None where it names none."""
    data = document.data if isinstance(document, Document) else None
    spec = data.get("spec") if isinstance(data, dict) else None
    release = spec.get("release") if isinstance(spec, dict) else None
    return str(release["id"]) if isinstance(release, dict) and "id" in release else None


def _worked(job: Job) -> Moment:
    outcome = f"{job.status}: {job.error_code}" if job.error_code else str(job.status)
    applied = [_applied(one) for one in (job.result or {}).get("applied", ())]
    # Why the loop came is said by the commit before it, or by nobody; what it did, by the job alone.
    what = f"{job.job_type}: {', '.join(applied)}" if applied and job.job_type == JobType.RECONCILE else job.job_type
    who = operator_of(job)
    return Moment(at=job.created_at, kind="job", id=str(job.id), what=what, who=who, outcome=outcome)


def _applied(step: Mapping[str, Any]) -> str:
    backup = step.get("backup_id")
    return f"{step['action']} to backup {backup}" if backup else str(step["action"])


def _kept(backup: Backup) -> Moment:
    size = f", {backup.size_bytes:,} bytes" if backup.size_bytes is not None else ""
    drilled = f", drill {backup.drill_status} {moment(backup.drilled_at)}" if backup.drilled_at else ""
    what = f"{backup.backup_scope}{size}{drilled}"
    return Moment(at=backup.created_at, kind="backup", id=str(backup.id), what=what, outcome=backup.status)
