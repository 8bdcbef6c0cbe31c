"""An environment's backups: listed, made, put back."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Response

from api.auth import require_session
from api.dependencies import Deps
from api.pages import Asked
from api.requests import BackupRequest, RestoreRequest, no_body
from api.terms import Who
from api.views import Backup, JobAccepted, accepted, backup_view
from reconciler.core.manifests import BackupScope
from reconciler.records.backups import Backup as BackupRow
from reconciler.storage.kept import restorable

router = APIRouter(prefix="/api/environments/{id}", dependencies=[Depends(require_session)])


@router.get("/backups")
def list_backups(id: UUID, deps: Deps, part: Asked, response: Response) -> list[Backup]:
    """The environment's backups, newest first."""
    deps.state.fleet().environment(id)
    backups, cursor = part.of(deps.records.backups.of(id), _age, newest_first=True)
    part.link(response, cursor)
    return [backup_view(backup) for backup in backups]


def _age(backup: BackupRow) -> tuple[str, ...]:
    return backup.created_at.isoformat(timespec="microseconds"), str(backup.id)


@router.post("/backups", status_code=202)
def create_backup(id: UUID, body: BackupRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """A job that sends database, files or both to storage."""
    return accepted(response, deps.operations.back_up(id, body.backup_scope, who))


@router.post("/drill", status_code=202, dependencies=[Depends(no_body)])
def drill_backup(id: UUID, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """A job that restores the newest backup into a throwaway copy and checks it."""
    return accepted(response, deps.operations.drill(id, who))


@router.post("/restore", status_code=202)
def restore(id: UUID, body: RestoreRequest, who: Who, response: Response, deps: Deps) -> JobAccepted:
    """Declare that the environment holds what a backup of its site has; a job puts it in."""
    fleet = deps.state.fleet()
    environment, backup = fleet.environment(id), deps.records.backups.get(body.backup_id)
    version = str(restorable(backup, environment, fleet, deps.settings)["wordpress_version"])
    scope = BackupScope(backup.backup_scope)
    return accepted(response, deps.operations.restore(id, backup.id, scope, version, who))
