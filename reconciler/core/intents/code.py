"""Code: a release deployed, taken back to an earlier one, or updated."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from reconciler.core.fleet import Fleet
from reconciler.core.intents.edits import (
    BaseIntent,
    Edit,
    Statuses,
    derived_release,
    plain,
    refuse_unready,
    without_nothing,
)
from reconciler.core.manifests import Release, UpdateScope, Version


class Deploy(BaseIntent):
    """Release new code; ``revision`` is what the reference was resolved to."""

    operation: Literal["deploy"] = "deploy"
    environment_id: UUID
    release_id: UUID
    source_type: Literal["git", "upload"]
    source_ref: str
    revision: str | None = None


class Rollback(BaseIntent):
    """Go back to a release that the node still has."""

    operation: Literal["rollback"] = "rollback"
    environment_id: UUID
    release: Release
    wordpress_version: Version
    reason: str | None = None
    """Why; left out where a person asks."""


class Update(BaseIntent):
    """Update core, plugins or themes into a new release."""

    operation: Literal["update"] = "update"
    environment_id: UUID
    release_id: UUID
    scope: UpdateScope


class RecordVersions(BaseIntent):
    """What an update resulted in; says nothing once another release is declared."""

    operation: Literal["record_versions"] = "record_versions"
    environment_id: UUID
    release_id: UUID
    wordpress_version: Version
    plugins: Mapping[str, str]
    themes: Mapping[str, str]


def deploy(intent: Deploy, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_unready(environment, statuses, now)
    release = without_nothing(
        id=intent.release_id,
        source_type=intent.source_type,
        source_ref=intent.source_ref,
        revision=intent.revision,
    )
    return Edit(
        message=f"Deploy {intent.source_ref} to {environment.key}",
        assign={environment.path: {("spec", "release"): release}},
    )


def rollback(intent: Rollback, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_unready(environment, statuses, now)
    fields: dict[tuple[str, ...], Any] = {
        ("spec", "release"): plain(intent.release),
        ("spec", "wordpress"): {"version": intent.wordpress_version},
    }
    message = f"Roll {environment.key} back to release {intent.release.id}"
    return Edit(
        message=f"{message}\n\n{intent.reason}" if intent.reason else message, assign={environment.path: fields}
    )


def update(intent: Update, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_unready(environment, statuses, now)
    release = derived_release(
        environment.manifest.spec.release,
        intent.release_id,
        origin="update",
        made_from=fleet.release_id(environment),
        scope=intent.scope,
    )
    return Edit(
        message=f"Update {intent.scope} of {environment.key}", assign={environment.path: {("spec", "release"): release}}
    )


def record_versions(intent: RecordVersions, fleet: Fleet) -> Edit:
    environment = fleet.environment(intent.environment_id)
    message = f"Record what {environment.key} was updated to"
    if fleet.release_id(environment) != intent.release_id:
        return Edit(message=message)
    versions = {"plugins": dict(intent.plugins), "themes": dict(intent.themes)}
    fields: dict[tuple[str, ...], Any] = {
        ("spec", "wordpress"): {"version": intent.wordpress_version},
        ("spec", "versions"): versions,
    }
    return Edit(message=message, assign={environment.path: fields})
