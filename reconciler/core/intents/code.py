"""Code: a release deployed, taken back to an earlier one, or updated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from reconciler.core.fields import Version
from reconciler.core.fleet import Fleet
from reconciler.core.intents.edits import (
    BaseIntent,
    Edit,
    Statuses,
    derived_release,
    no_versions,
    plain,
    refuse_unready,
    without_nothing,
)
from reconciler.core.intents.options import with_options
from reconciler.core.manifests import Release, UpdateScope


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


class Adopt(BaseIntent):
    """Declare the code as it is on the node by now, and with it the options that were set there."""

    operation: Literal["adopt"] = "adopt"
    environment_id: UUID
    release_id: UUID
    options: Mapping[str, str | None] = {}


class Discard(BaseIntent):
    """Declare the code as it was released, without what was changed on the node since."""

    operation: Literal["discard"] = "discard"
    environment_id: UUID
    release_id: UUID


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
        unset=no_versions(environment),
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
        message=f"{message}\n\n{intent.reason}" if intent.reason else message,
        assign={environment.path: fields},
        unset=no_versions(environment),
    )


def update(intent: Update, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    return _derive(intent, fleet, statuses, now, message=f"Update {intent.scope} of", scope=intent.scope)


def adopt(intent: Adopt, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    """Which versions that are is recorded once the node has told: see ``RecordVersions``."""
    edit = _derive(intent, fleet, statuses, now, message="Adopt what was changed in")
    environment = fleet.environment(intent.environment_id)
    return with_options(replace(edit, unset=no_versions(environment)), environment, intent.options)


def discard(intent: Discard, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    """The versions stay recorded: it is the release that they were recorded of."""
    return _derive(intent, fleet, statuses, now, message="Discard what was changed in")


def _derive(
    intent: Update | Adopt | Discard, fleet: Fleet, statuses: Statuses, now: datetime, *, message: str, **more: str
) -> Edit:
    """Declare a release that the node makes of the declared one."""
    environment = fleet.environment(intent.environment_id)
    refuse_unready(environment, statuses, now)
    made_from = fleet.release_id(environment)
    former = environment.manifest.spec.release
    release = derived_release(former, intent.release_id, origin=intent.operation, made_from=made_from, **more)
    return Edit(message=f"{message} {environment.key}", assign={environment.path: {("spec", "release"): release}})


def record_versions(intent: RecordVersions, fleet: Fleet) -> Edit:
    environment = fleet.environment(intent.environment_id)
    release = environment.manifest.spec.release
    what = "has adopted" if release and release.origin == "adopt" else "was updated to"
    message = f"Record what {environment.key} {what}"
    if fleet.release_id(environment) != intent.release_id:
        return Edit(message=message)
    versions = {"plugins": dict(intent.plugins), "themes": dict(intent.themes)}
    fields: dict[tuple[str, ...], Any] = {
        ("spec", "wordpress"): {"version": intent.wordpress_version},
        ("spec", "versions"): versions,
    }
    return Edit(message=message, assign={environment.path: fields})
