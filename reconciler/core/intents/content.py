"""Content: imported, restored, or promoted from another environment."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict
from reconciler.core.fields import Version
from reconciler.core.fleet import Fleet
from reconciler.core.intents.edits import (
    BaseIntent,
    Edit,
    Statuses,
    derived_release,
    no_versions,
    refuse_unready,
    without_nothing,
)
from reconciler.core.manifests import BackupScope, EnvironmentType, PromotionPreset
from reconciler.core.promotion_selection import Selector, brings_code
from reconciler.core.replacement import TableGroup, TableName
from reconciler.core.visible import visible

Fields = dict[tuple[str, ...], Any]


class ImportSite(BaseIntent):
    """Replace the production environment's content and plugins and themes by an archive's."""

    operation: Literal["import_site"] = "import_site"
    environment_id: UUID
    archive_url: str
    release_id: UUID
    content_id: UUID


class Restore(BaseIntent):
    """Put a backup in. ``scope`` is the backup's; ``wordpress_version`` that of its code, where it has code."""

    operation: Literal["restore"] = "restore"
    environment_id: UUID
    backup_id: UUID
    scope: BackupScope
    wordpress_version: Version | None = None
    release_id: UUID
    content_id: UUID


class Promote(BaseIntent):
    """Move an environment's changes to another one of the site."""

    operation: Literal["promote"] = "promote"
    environment_id: UUID
    """The source."""
    target_environment_id: UUID
    release_id: UUID
    content_id: UUID
    include: tuple[Selector, ...] = ()
    exclude: tuple[Selector, ...] = ()


class SearchReplace(BaseIntent):
    """Replace a text in the environment's tables."""

    operation: Literal["search_replace"] = "search_replace"
    environment_id: UUID
    content_id: UUID
    search: str
    replace: str
    tables: tuple[TableName, ...] = ()
    groups: tuple[TableGroup, ...] = ()
    guid: bool = False


def import_site(intent: ImportSite, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_unready(environment, statuses, now)
    release = without_nothing(id=intent.release_id, origin="import", made_from=intent.content_id)
    content = without_nothing(id=intent.content_id, origin="import", archive_url=intent.archive_url)
    fields: Fields = {("spec", "release"): release, ("spec", "content"): content}
    return Edit(
        message=f"Import {intent.archive_url} into {environment.key}",
        assign={environment.path: fields},
        unset=no_versions(environment),
    )


def restore(intent: Restore, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_unready(environment, statuses, now)
    content = without_nothing(id=intent.content_id, origin="restore", backup=intent.backup_id)
    fields: Fields = {("spec", "content"): content}
    if intent.scope is not BackupScope.DB:
        release = without_nothing(id=intent.release_id, origin="restore", made_from=intent.backup_id)
        fields[("spec", "release")] = release
        if intent.wordpress_version:
            fields[("spec", "wordpress")] = {"version": intent.wordpress_version}
    return Edit(
        message=f"Restore backup {intent.backup_id} into {environment.key}",
        assign={environment.path: fields},
        unset=no_versions(environment) if ("spec", "release") in fields else {},
    )


def refuse_unpromotable(source: EnvironmentEntry, target: EnvironmentEntry) -> None:
    """Raises Conflict where no promotion leads from ``source`` to ``target``."""
    if source.site != target.site:
        raise Conflict(f"{source.key} and {target.key} belong to two sites. Promote within one.")
    if source.id == target.id or source.manifest.spec.type is EnvironmentType.PRODUCTION:
        raise Conflict(f"{source.key} cannot be promoted to {target.key}. Promote from staging or a clone.")
    if source.manifest.spec.node != target.manifest.spec.node:
        raise Conflict(
            f"{source.key} and {target.key} are on two nodes. Clone {target.key} on its node and promote from there."
        )


def promote(intent: Promote, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    source, target = fleet.environment(intent.environment_id), fleet.environment(intent.target_environment_id)
    refuse_unpromotable(source, target)
    refuse_unready(source, statuses, now)
    refuse_unready(target, statuses, now)
    code = (source if brings_code(intent.include, intent.exclude) else target).manifest.spec
    release = derived_release(code.release, intent.release_id, origin="promote", made_from=source.id)
    version = (code.wordpress or fleet.platform.spec.wordpress).version
    preset = source.manifest.spec.promotion_preset or PromotionPreset.COMMERCE_PROTECT
    content = without_nothing(
        id=intent.content_id,
        origin="promote",
        source_environment=source.id,
        preset=preset.value,
        include=list(intent.include) or None,
        exclude=list(intent.exclude) or None,
    )
    fields: Fields = {
        ("spec", "release"): release,
        ("spec", "content"): content,
        ("spec", "wordpress"): {"version": version},
    }
    return Edit(
        message=f"Promote {source.key} to {target.key}", assign={target.path: fields}, unset=no_versions(target)
    )


def search_replace(intent: SearchReplace, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_unready(environment, statuses, now)
    content = without_nothing(
        id=intent.content_id,
        origin="search-replace",
        search=intent.search,
        replace=intent.replace,
        tables=list(intent.tables) or None,
        groups=list(intent.groups) or None,
        guid=intent.guid or None,
    )
    return Edit(
        message=f"Replace “{visible(intent.search, 50)}” by “{visible(intent.replace, 50)}” in {environment.key}",
        assign={environment.path: {("spec", "content"): content}},
    )
