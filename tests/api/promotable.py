"""An environment whose changes may move up: compared, and its target backed up."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import update

from reconciler.core.changes import Cause, Change
from reconciler.core.promotion import Comparison, differences
from reconciler.core.promotion_preview import Preview
from reconciler.records.backups import Backup
from reconciler.records.database import write
from reconciler.records.drift import DriftCheck
from reconciler.records.jobs import NewJob
from reconciler.records.tables import jobs
from tests.api.control import Control

NOTHING: Mapping[str, Any] = {"counts": {}, "moves": [], "stays": [], "conflicts": []}
PLATFORM = b"""apiVersion: trueup/v1
kind: Platform
spec:
  backups: {endpoint: "https://storage.example", bucket: backups}
"""


def staging_of(control: Control, site: str, node: str = "web-1") -> UUID:
    """A staging environment of the site, written by hand; the platform has storage."""
    text = f"apiVersion: trueup/v1\nkind: Environment\nspec:\n  type: staging\n  node: {node}\n"
    control.add({f"sites/{site}/environments/staging.yaml": text.encode(), "platform.yaml": PLATFORM})
    fleet = control.state.fleet()
    return next(one.id for one in fleet.environments.values() if one.key == f"{site}/staging")


PREVIEW: Mapping[str, Any] = {
    "counts": {"moves": {"option": 1}, "stays": {"order": 3}, "left_behind": {"product": 21}},
    "moves": [{"kind": "option", "reason": "changed_in_source", "change": "changed", "name": "blogname"}],
    "stays": [{"kind": "order", "reason": "changed_in_target", "change": "changed", "name": None, "count": 3}],
    "left_behind": [
        {
            "kind": "product",
            "reason": "content",
            "change": "changed",
            "name": "Hat \x1b[31m",
            "type": "product",
            "number": 900,
            "details": ["price"],
        }
    ],
    "conflicts": [],
}
"""As a node tells it."""


def preview(control: Control, source: UUID, target: UUID) -> UUID:
    """A drift check of now whose job found the ``PREVIEW``; the job's id."""
    job = NewJob(id=uuid4(), job_type="drift-check", environment_id=source)
    control.records.jobs.enqueue(job, control.clock())
    found = differences(Comparison.model_validate({"written": {}, "code": NOTHING, "protected": {}}), str(target))
    kept = Preview.model_validate(PREVIEW).model_dump(mode="json")
    statement = update(jobs).where(jobs.c.id == job.id).values(status="succeeded", result={"promotion": kept})
    write(control.records.engine, lambda connection: connection.execute(statement))
    check = DriftCheck(
        id=job.id, environment_id=source, status="clean", differences=found, created_at=control.clock(), job_id=job.id
    )
    control.records.drift_checks.save(check)
    return job.id


def compare(control: Control, source: UUID, target: UUID, **written: Mapping[str, Any]) -> None:
    """A drift check of now."""
    found = differences(Comparison.model_validate({"written": written, "code": NOTHING, "protected": {}}), str(target))
    status = "drifted" if any(one.get("content") == "conflicts" for one in found) else "clean"
    now = control.clock()
    check = DriftCheck(id=uuid4(), environment_id=source, status=status, differences=found, created_at=now)
    control.records.drift_checks.save(check)


def change_code(control: Control, environment: UUID) -> None:
    """A drift check of now that found a plugin which nobody released."""
    change = Change("release wp-content/plugins/by-hand/", "absent", "unknown", Cause.NODE_TOUCHED, heals=False)
    check = DriftCheck(
        id=uuid4(),
        environment_id=environment,
        status="drifted",
        differences=(asdict(change),),
        created_at=control.clock(),
    )
    control.records.drift_checks.save(check)


def back_up(control: Control, environment: UUID) -> None:
    """A full backup of now."""
    now = control.clock()
    control.records.backups.save(
        Backup(
            id=uuid4(),
            environment_id=environment,
            backup_scope="full",
            status="completed",
            created_at=now,
            completed_at=now,
        )
    )


def promotable(control: Control, site: str, target: UUID) -> UUID:
    """The id of a staging environment that may be promoted to ``target``."""
    staging = staging_of(control, site)
    preview(control, staging, target)
    back_up(control, target)
    return staging
