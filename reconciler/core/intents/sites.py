"""Sites and environments: made, and copied."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry, SiteEntry
from reconciler.core.errors import Conflict, NotFound
from reconciler.core.fields import DisplayName, Slug
from reconciler.core.fleet import Fleet, preview_url
from reconciler.core.intents.edits import (
    BaseIntent,
    Edit,
    Statuses,
    derived_release,
    node_for,
    plain,
    refuse_taken_path,
    refuse_taken_url,
    refuse_unready,
    without_nothing,
)
from reconciler.core.manifests import API_VERSION, EnvironmentType, PromotionPreset
from reconciler.core.options import VISIBILITY


class CreateSite(BaseIntent):
    """Make a site and its production environment on the node with the fewest environments."""

    operation: Literal["create_site"] = "create_site"
    name: DisplayName
    slug: Slug
    site_id: UUID
    environment_id: UUID
    release_id: UUID
    content_id: UUID
    node: Slug | None = None


class CreateEnvironment(BaseIntent):
    """Copy an environment of a site into a new one, on the source's node unless another is named."""

    operation: Literal["create_environment"] = "create_environment"
    site_id: UUID
    environment_id: UUID
    release_id: UUID
    content_id: UUID
    name: DisplayName
    slug: Slug
    type: EnvironmentType
    source_environment_id: UUID | None = None
    promotion_preset: PromotionPreset | None = None
    node: Slug | None = None


def create_site(intent: CreateSite, fleet: Fleet) -> Edit:
    # A document that stalls still owns its path: it may be one character away from being a site.
    if any(stalled.path.startswith(f"sites/{intent.slug}/") for stalled in fleet.stalled) or (
        intent.slug in fleet.sites_by_slug
    ):
        raise Conflict(f"A site with the slug {intent.slug} exists. Choose another slug.")
    node = node_for(intent.node, fleet)
    url = preview_url(intent.environment_id, node.manifest.spec.address, fleet.platform)
    refuse_taken_url(url, fleet)
    site = {
        "apiVersion": API_VERSION,
        "kind": "Site",
        "metadata": {"id": str(intent.site_id), "name": intent.name},
        "spec": {},
    }
    environment = {
        "apiVersion": API_VERSION,
        "kind": "Environment",
        "metadata": {"id": str(intent.environment_id), "name": "Production"},
        "spec": {
            "type": "production",
            "node": node.slug,
            "wordpress": {"version": fleet.platform.spec.wordpress.version},
            "release": {"id": str(intent.release_id)},
            "content": {"id": str(intent.content_id), "origin": "install", "title": intent.name},
            "preview_url": url,
            "cache": {"fastcgi": True, "redis": True},
        },
    }
    return Edit(
        message=f"Create site {intent.slug} on {node.slug}",
        create={
            f"sites/{intent.slug}/site.yaml": site,
            f"sites/{intent.slug}/environments/production.yaml": environment,
        },
    )


def create_environment(intent: CreateEnvironment, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    site = fleet.site(intent.site_id)
    path = f"sites/{site.slug}/environments/{intent.slug}.yaml"
    key = f"{site.slug}/{intent.slug}"
    if key in fleet.environments_by_key:
        raise Conflict(f"Environment {key} exists. Choose another slug.")
    refuse_taken_path(path, "environment", fleet)
    if intent.type is EnvironmentType.PRODUCTION and fleet.production_of(site):
        raise Conflict(f"Site {site.slug} has its production environment. Make a staging or clone environment.")
    source = source_of(intent.source_environment_id, site, fleet)
    refuse_unready(source, statuses, now)
    node = node_for(intent.node or source.manifest.spec.node, fleet)
    url = preview_url(intent.environment_id, node.manifest.spec.address, fleet.platform)
    refuse_taken_url(url, fleet)
    document = {
        "apiVersion": API_VERSION,
        "kind": "Environment",
        "metadata": {"id": str(intent.environment_id), "name": intent.name},
        "spec": _copied_spec(intent, source, fleet) | {"node": node.slug, "preview_url": url},
    }
    return Edit(message=f"Copy {source.key} into {key} on {node.slug}", create={path: document})


def source_of(environment_id: UUID | None, site: SiteEntry, fleet: Fleet) -> EnvironmentEntry:
    """The environment of ``site`` that is copied: as named, else production."""
    if environment_id is None:
        if production := fleet.production_of(site):
            return production
        raise Conflict(f"Site {site.slug} has no production environment to copy. Name source_environment_id.")
    source = fleet.environment(environment_id)
    if source.site != site.slug:
        raise NotFound(f"Site {site.slug} has no environment {environment_id}. List its environments.")
    return source


def _copied_spec(intent: CreateEnvironment, source: EnvironmentEntry, fleet: Fleet) -> dict[str, Any]:
    spec = source.manifest.spec
    release = derived_release(spec.release, intent.release_id, origin="clone", made_from=source.id)
    preset = intent.promotion_preset or PromotionPreset.CONTENT_PROTECT
    return without_nothing(
        type=intent.type.value,
        node=spec.node,
        wordpress={"version": (spec.wordpress or fleet.platform.spec.wordpress).version},
        release=release,
        content=without_nothing(id=intent.content_id, origin="clone", source_environment=source.id),
        source_environment=source.id,
        promotion_preset=preset.value,
        preview_url="",
        cache=plain(spec.cache),
        php=plain(spec.php),
        files=spec.files,
        options={name: value for name, value in spec.options.items() if name.casefold() != VISIBILITY} or None,
        versions=plain(spec.versions) if spec.versions.plugins or spec.versions.themes else None,
    )
