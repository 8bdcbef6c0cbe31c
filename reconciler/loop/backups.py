"""Backups: what of an environment is put where, verified before it is put back, and removed when its time is over.

Below ``<environment id>/<backup id>/`` in the bucket lie ``database.sql.zst``, ``files.tar.zst`` and, written last,
``manifest.json``: without it there is no backup. The record holds the manifest's own sha256.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from reconciler.core.actions import BackUp, RestoreBackup, ReturnContent
from reconciler.core.cron import next_due
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import JobError, NodeUnreachable, ObjectUnusable, TrueupError
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode
from reconciler.core.manifests import BackupScope
from reconciler.core.node_answer import AnswerRefused, understood
from reconciler.core.observed import Count, Word
from reconciler.loop.tools import Inputs, Run, Tools
from reconciler.records.backups import Backup, Backups
from reconciler.state import State
from reconciler.storage.bucket import SMALL, Storage, Upload
from reconciler.storage.kept import manifest_of, storage_of

log = structlog.get_logger()

PART_BYTES = 16 << 20
MOST_PARTS = 10_000
MOST_TABLES = 10_000
"""That are named; of a database with more nothing says which there were."""
_LONGEST_SIZE = 20
OBJECTS = {"db": ("database.sql.zst",), "files": ("files.tar.zst",), "full": ("database.sql.zst", "files.tar.zst")}
STALE = timedelta(days=1)
GONE = timedelta(days=30)
"""How long a node without a document may come back as it was: it was thrown away, or its document was lost."""
_SIZES = (
    'du -sb "$1/shared/uploads" "$1/current/wp-content" | cut -f1; mariadb -BN -e "SELECT COALESCE(SUM(data_length), 0)'
    " FROM information_schema.tables WHERE table_schema = '$2'\""
)


class SentObject(BaseModel):
    """One object as a node says that it sent it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    etags: Annotated[tuple[Word, ...], Field(max_length=MOST_PARTS)]
    """The first part's first."""
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    size_bytes: Count


class Sent(BaseModel):
    """A node's own account of a backup; by object."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    objects: Annotated[dict[Word, SentObject], Field(max_length=16)]
    wordpress_version: Word | None = None
    content_id: UUID | None = None
    """The content that was served; None where none says so."""
    tables: Annotated[dict[Word, Count | None], Field(max_length=MOST_TABLES)] | None = None
    """By table, how many rows went; None for those that could not be counted. None: no database, or too many tables."""


def take(environment_id: UUID, backup_id: UUID, scope: BackupScope, tools: Tools, fleet: Fleet, run: Run) -> Backup:
    """Back an environment up; the record, which says so too when it fails.

    Raises:
        JobError: it could not be done. Nothing of it is left in the bucket.
    """
    environment = fleet.environment(environment_id)
    records = tools.state.records.backups
    backup = _begun(backup_id, environment, scope, tools.clock())
    records.save(backup)
    uploads: dict[str, Upload] = {}
    try:
        storage = storage_of(fleet, tools.settings)
        parts = _parts(environment, tools, fleet)
        for name in OBJECTS[scope]:
            uploads[name] = storage.begin(f"{backup.storage_path}/{name}", parts)
        sent = _send(environment, scope, uploads, tools, fleet, run)
        done = _completed(backup, environment, storage, uploads, sent, tools, fleet)
    except TrueupError as error:
        records.save(replace(backup, status="failed"))
        with suppress(TrueupError):
            for upload in uploads.values():
                storage_of(fleet, tools.settings).abort(upload)
        if isinstance(error, JobError):
            raise
        raise JobError(JobErrorCode.BACKUP_FAILED, error.message) from error
    records.save(done)
    return done


def _begun(id_: UUID, environment: EnvironmentEntry, scope: BackupScope, now: datetime) -> Backup:
    return Backup(
        id=id_,
        environment_id=environment.id,
        backup_scope=scope.value,
        status="running",
        storage_path=f"{environment.id}/{id_}",
        created_at=now,
    )


def _parts(environment: EnvironmentEntry, tools: Tools, fleet: Fleet) -> int:
    """How many parts an object may need: as many as if nothing could be compressed, and some."""
    node = fleet.node_of(environment)
    if node is None:
        raise JobError(JobErrorCode.TARGET_MISSING, f"The node of {environment.key} has no document.")
    argv = ["sh", "-c", _SIZES, "sh", f"/var/www/sites/{environment.id}", f"wp_{environment.id.hex[:12]}"]
    try:
        answer = tools.connections.run(tools.target(node), argv, timeout_s=60, max_output_bytes=1 << 20)
    except NodeUnreachable as error:
        raise JobError(JobErrorCode.ANSIBLE_HOST_UNREACHABLE, error.message) from error
    sizes = [int(word) for word in answer.stdout.split()[:4] if word.isdigit() and len(word) < _LONGEST_SIZE]
    if answer.exit or len(sizes) != 3:
        message = f"{environment.key} is not on its node, so there is nothing to back up. Apply it first."
        raise JobError(JobErrorCode.BACKUP_FAILED, message)
    # No service takes more, and each part is an address that is made here and sent to the node.
    return min(math.ceil(sum(sizes) * 2 / PART_BYTES) + 8, MOST_PARTS)


def _send(
    environment: EnvironmentEntry,
    scope: BackupScope,
    uploads: Mapping[str, Upload],
    tools: Tools,
    fleet: Fleet,
    run: Run,
) -> Sent:
    """What the node says that it sent."""
    node = fleet.node_of(environment)
    assert node is not None  # noqa: S101 (asked for its sizes already)
    action = BackUp(node.slug, node.id, environment.id, fleet.environment_variables(environment.id))
    urls = {name: list(upload.urls) for name, upload in uploads.items()}
    given = {"scope": scope.value, "part_bytes": PART_BYTES, "uploads": urls}
    secrets = tuple(url for upload in uploads.values() for url in upload.urls)
    result = tools.apply(action, fleet, run, Inputs({"trueup_backup": given}, secrets))
    answer = next((one.data for one in reversed(result.results) if "objects" in one.data), None)
    if not result.ok or answer is None:
        raise JobError(JobErrorCode(result.error_code or "BACKUP_FAILED"), result.message)
    try:
        sent = understood(Sent, answer)
    except AnswerRefused as error:
        message = f"What {node.slug} says that it sent cannot be understood: {error}"
        raise JobError(JobErrorCode.BACKUP_FAILED, message) from error
    if missing := uploads.keys() - sent.objects.keys():
        raise JobError(
            JobErrorCode.BACKUP_FAILED, f"{node.slug} did not say that it sent {', '.join(sorted(missing))}."
        )
    return sent


def _completed(
    backup: Backup,
    environment: EnvironmentEntry,
    storage: Storage,
    uploads: Mapping[str, Upload],
    sent: Sent,
    tools: Tools,
    fleet: Fleet,
) -> Backup:
    objects = {name: sent.objects[name] for name in uploads}
    for name, upload in uploads.items():
        storage.complete(upload, list(objects[name].etags))
    kept = {name: {"sha256": one.sha256, "size_bytes": one.size_bytes} for name, one in objects.items()}
    now = tools.clock()
    declared = fleet.platform.spec.backups
    days = environment.manifest.spec.backups.retention_days or (declared.retention_days if declared else 30)
    manifest = {
        "format": 1,
        "id": str(backup.id),
        "environment_id": str(environment.id),
        "environment": environment.key,
        "scope": backup.backup_scope,
        "created_at": backup.created_at.astimezone(UTC).isoformat(),
        "retention_until": (now + timedelta(days=days)).astimezone(UTC).isoformat(),
        "wordpress_version": sent.wordpress_version,
        "content_id": sent.content_id and str(sent.content_id),
        "url": fleet.environment_variables(environment.id).url,
        "objects": kept,
        "tables": sent.tables,
    }
    data = written(manifest)
    storage.put(f"{backup.storage_path}/manifest.json", data)
    return replace(
        backup,
        status="completed",
        checksum=hashlib.sha256(data).hexdigest(),
        size_bytes=sum(one.size_bytes for one in objects.values()),
        retention_until=now + timedelta(days=days),
        completed_at=now,
        content_id=sent.content_id,
    )


def written(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as it is kept: without its tables where their names, which a site chose, would make it too large."""
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    if len(data) <= SMALL:
        return data
    return json.dumps({**manifest, "tables": None}, indent=1, sort_keys=True).encode()


def _id(text: str | None) -> UUID | None:
    return UUID(text) if text else None


# Putting back


def inputs_of_restore(action: RestoreBackup, tools: Tools, fleet: Fleet) -> Inputs:
    """What ``restore.yml`` is given: addresses of the objects, and what each must be."""
    return _inputs_of(UUID(str(action.variables.content.backup)), tools, fleet)


def inputs_of_return(action: ReturnContent, tools: Tools, fleet: Fleet) -> Inputs:
    """The same for content that was left, and under which id it is got ready there."""
    inputs = _inputs_of(action.kept.backup_id, tools, fleet)
    return Inputs({**inputs.extra_vars, "trueup_return": {"staged": str(action.staged)}}, inputs.secrets)


def _inputs_of(backup_id: UUID, tools: Tools, fleet: Fleet) -> Inputs:
    backup = tools.state.records.backups.get(backup_id)
    if backup.status != "completed":
        raise JobError(JobErrorCode.BACKUP_DAMAGED, f"Backup {backup.id} is {backup.status}. Choose another one.")
    storage = storage_of(fleet, tools.settings)
    manifest = manifest_of(backup, storage)
    urls = addresses_of(backup, storage)
    return Inputs({"trueup_backup": {"manifest": manifest, "urls": urls}}, tuple(urls.values()))


def addresses_of(backup: Backup, storage: Storage) -> dict[str, str]:
    """By object of a backup, the address at which a node may read it for some hours."""
    return {name: storage.url(f"{backup.storage_path}/{name}") for name in OBJECTS[backup.backup_scope]}


# When


def is_due(environment_id: UUID, cron: str, backups: Backups, now: datetime) -> bool:
    """Whether the time of a backup came since the last one was begun; one that is yet to come, as a clock wrote it that
    was ahead, puts none off."""
    last = next((one for one in backups.of(environment_id) if one.created_at <= now), None)
    # One that never had any is due at the first moment after now minus a day.
    since = last.created_at if last else now - timedelta(days=1)
    moment = next_due(cron, since)
    return moment is not None and moment <= now


# Keeping


def expire(tools: Tools) -> list[UUID]:
    """Remove from the bucket what is kept no longer, and uploads that nobody will complete; the backups' ids.

    The newest good backup of an environment that is declared, or is on some node, is never removed.
    """
    fleet, now, records = tools.state.fleet(), tools.clock(), tools.state.records.backups
    if fleet.platform.spec.backups is None:
        return []
    storage = storage_of(fleet, tools.settings)
    storage.abort_older(now - STALE)
    over = records.over(now, fleet.environments.keys() | seen_environments(tools.state, fleet, now))
    for backup in over:
        # The manifest first: what is left of it then is no backup.
        for name in ("manifest.json", *OBJECTS[backup.backup_scope]):
            storage.delete(f"{backup.storage_path}/{name}")
        records.save(replace(backup, status="expired"))
    return [backup.id for backup in over]


def seen_environments(state: State, fleet: Fleet, now: datetime) -> set[UUID]:
    """The environments that a node had when it last answered, also those whose documents are gone.

    A node whose own document is gone is asked no more, and its last answer counts for a while.
    """
    answers = [
        one.observed
        for node_id, one in state.records.observations.all().items()
        if one.observed and (node_id in fleet.nodes or one.checked_at > now - GONE)
    ]
    return {UUID(id_) for answer in answers for id_ in answer.environments}


def rebuild(tools: Tools) -> list[UUID]:
    """Learn from the bucket which backups there are, after the records were lost; the ids of those that were new."""
    fleet, records = tools.state.fleet(), tools.state.records.backups
    storage = storage_of(fleet, tools.settings)
    known = {backup.id for environment in fleet.environments for backup in records.of(environment)}
    found = [backup for backup in _in_bucket(storage) if backup.id not in known]
    for backup in found:
        records.save(backup)
    return [backup.id for backup in found]


def _in_bucket(storage: Storage) -> Iterator[Backup]:
    for key in storage.keys(""):
        if not key.endswith("/manifest.json"):
            continue
        try:
            yield _backup_of(key.removesuffix("/manifest.json"), storage.get(key))
        except (ObjectUnusable, KeyError, TypeError, ValueError, AttributeError) as error:
            # One that is damaged, or somebody else's, must not hide the others.
            log.warning("no backup", key=key, error=str(error))


def _backup_of(path: str, data: bytes) -> Backup:
    manifest = json.loads(data)
    created = datetime.fromisoformat(manifest["created_at"])
    return Backup(
        id=UUID(manifest["id"]),
        environment_id=UUID(manifest["environment_id"]),
        backup_scope=BackupScope(manifest["scope"]).value,
        status="completed",
        storage_path=path,
        retention_until=datetime.fromisoformat(manifest["retention_until"]),
        checksum=hashlib.sha256(data).hexdigest(),
        size_bytes=sum(one["size_bytes"] for one in manifest["objects"].values()),
        created_at=created,
        completed_at=created,
        content_id=_id(manifest.get("content_id")),
    )
