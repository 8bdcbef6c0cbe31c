"""An environment whose changes may move up: compared, and its target backed up."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

from reconciler.core.changes import Cause, Change
from reconciler.core.promotion import Comparison, differences
from reconciler.records.backups import Backup
from reconciler.records.drift import DriftCheck
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
    compare(control, staging, target)
    back_up(control, target)
    return staging
