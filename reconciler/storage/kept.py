"""What is kept of environments in the storage, as far as it can be known without asking a node."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, JobError, ObjectUnusable, StorageError, StorageNotConfigured
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode
from reconciler.records.backups import Backup
from reconciler.settings import Settings
from reconciler.storage.bucket import Storage
from reconciler.storage.secret_store import Secrets


def storage_of(fleet: Fleet, settings: Settings) -> Storage:
    """The storage that the platform document names.

    Raises:
        StorageNotConfigured: it names none.
    """
    declared = fleet.platform.spec.backups
    if declared is None:
        raise StorageNotConfigured("platform.yaml names no storage for backups. Set spec.backups first.")
    return Storage(declared, Secrets(settings.secrets))


def manifest_of(backup: Backup, storage: Storage) -> dict[str, Any]:
    """The manifest of a completed backup.

    Raises:
        JobError: it is not the one that was written, or is gone (``BACKUP_DAMAGED``); or the storage does not say
            (``STORAGE_UNAVAILABLE``).
    """
    try:
        data = storage.get(f"{backup.storage_path}/manifest.json")
    except StorageError as error:
        is_sure = isinstance(error, ObjectUnusable)
        code = JobErrorCode.BACKUP_DAMAGED if is_sure else JobErrorCode.STORAGE_UNAVAILABLE
        raise JobError(code, f"Backup {backup.id} cannot be read: {error.message}") from error
    if hashlib.sha256(data).hexdigest() != backup.checksum:
        message = f"The manifest of backup {backup.id} is not what was written. Choose another backup."
        raise JobError(JobErrorCode.BACKUP_DAMAGED, message)
    manifest: dict[str, Any] = json.loads(data)
    return manifest


def restorable(backup: Backup, environment: EnvironmentEntry, fleet: Fleet, settings: Settings) -> dict[str, Any]:
    """The manifest of a backup that may go into the environment.

    Raises:
        Conflict: it isn't completed, is damaged, or is of another site.
    """
    if backup.status != "completed":
        raise Conflict(f"Backup {backup.id} is {backup.status}. Choose a completed one.")
    origin = fleet.environments.get(backup.environment_id)
    if origin is None or origin.site != environment.site:
        raise Conflict(f"Backup {backup.id} is not of site {environment.site}. Choose one of its own.")
    try:
        return manifest_of(backup, storage_of(fleet, settings))
    except JobError as error:
        raise Conflict(error.message) from error
