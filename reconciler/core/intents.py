"""An API operation and the fleet become an edit of documents, or a conflict.

Pure: new ids and the time come as arguments, so that an intent kept in a job's row gives the same documents when a
crash makes us evaluate it again. Statuses come in as data: what is busy is known to the records, not to Git.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.errors import Conflict, NoNodeAvailable
from reconciler.core.fleet import Fleet, preview_url
from reconciler.core.manifests import API_VERSION, DisplayName, ReconcileMode, Slug, effective_mode
from reconciler.core.status import EnvironmentStatus

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Edit:
    """What one commit does: whole new documents, and single fields of those that are there."""

    message: str
    create: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Path to the new document; the path must be free."""
    assign: Mapping[str, Mapping[KeyPath, Any]] = field(default_factory=dict)
    """Path to the fields to set; all else in the document stays byte for byte."""


class _Intent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CreateSite(_Intent):
    """Make a site and its production environment on the node with the fewest environments."""

    operation: Literal["create_site"] = "create_site"
    name: DisplayName
    slug: Slug
    site_id: UUID
    environment_id: UUID
    release_id: UUID
    content_id: UUID
    node: Slug | None = None


class SetCache(_Intent):
    """Switch one environment's page cache and object cache on or off; None leaves one as it is."""

    operation: Literal["set_cache"] = "set_cache"
    environment_id: UUID
    fastcgi: bool | None = None
    redis: bool | None = None


class AddNode(_Intent):
    """Declare a host, with the host key that a person has seen."""

    operation: Literal["add_node"] = "add_node"
    node_id: UUID
    name: Slug
    address: str
    port: int
    user: str
    host_key: str


Intent = Annotated[CreateSite | SetCache | AddNode, Field(discriminator="operation")]


def evaluate(intent: Intent, fleet: Fleet, statuses: Mapping[UUID, EnvironmentStatus], now: datetime) -> Edit:
    """The edit that carries ``intent`` out on this fleet.

    Raises:
        Conflict: it doesn't go together with what is there.
        NotFound: it names a resource that isn't there.
    """
    match intent:
        case CreateSite():
            return _create_site(intent, fleet)
        case SetCache():
            return _set_cache(intent, fleet, statuses, now)
        case AddNode():
            return _add_node(intent, fleet)


def _create_site(intent: CreateSite, fleet: Fleet) -> Edit:
    # A document that stalls still owns its path: it may be one character away from being a site.
    if any(stalled.path.startswith(f"sites/{intent.slug}/") for stalled in fleet.stalled) or (
        intent.slug in fleet.sites_by_slug
    ):
        raise Conflict(f"A site with the slug {intent.slug} exists. Choose another slug.")
    node = _node_for(intent, fleet)
    url = preview_url(intent.environment_id, node.manifest.spec.address, fleet.platform)
    if any(fleet.preview_url(environment) == url for environment in fleet.environments.values()):
        raise Conflict(f"The preview URL {url} is taken. Try again: the next site gets another id.")
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


def _node_for(intent: CreateSite, fleet: Fleet) -> NodeEntry:
    if intent.node and (named := fleet.nodes_by_slug.get(intent.node)) and _takes_sites(named):
        return named
    if intent.node:
        raise NoNodeAvailable(f"Node {intent.node} is not there to take a site. See the list of nodes.")
    nodes = [node for node in fleet.nodes.values() if _takes_sites(node)]
    if not nodes:
        raise NoNodeAvailable("No active node can take a site. Add one with `trueup node add`.")
    return min(nodes, key=lambda node: (len(fleet.environments_by_node.get(node.slug, ())), node.slug))


def _takes_sites(node: NodeEntry) -> bool:
    return node.stalled is None and node.manifest.spec.state == "active"


def _set_cache(intent: SetCache, fleet: Fleet, statuses: Mapping[UUID, EnvironmentStatus], now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_untouchable(environment, now)
    # Cache flags merge with whatever is queued; only a failed environment must be looked at first.
    if statuses.get(environment.id) is EnvironmentStatus.FAILED:
        raise Conflict(f"Environment {environment.key} is failed. Look at its last job and apply it again first.")
    flags = {"fastcgi": intent.fastcgi, "redis": intent.redis}
    wanted = {name: flag for name, flag in flags.items() if flag is not None}
    words = " and ".join(f"{_CACHES[name]} {'on' if flag else 'off'}" for name, flag in wanted.items())
    return Edit(
        message=f"Switch {words} for {environment.key}",
        assign={environment.path: {("spec", "cache", name): flag for name, flag in wanted.items()}},
    )


_CACHES = {"fastcgi": "FastCGI cache", "redis": "Redis cache"}


def refuse_untouchable(environment: EnvironmentEntry, now: datetime) -> None:
    """Raises Conflict when nothing may be done to the environment: its document is stalled, or says paused."""
    if environment.stalled:
        raise Conflict(f"{environment.stalled} Correct the document first.")
    reconcile = environment.manifest.spec.reconcile
    if effective_mode(reconcile, now) is ReconcileMode.PAUSED:
        reason = f" ({reconcile.reason})" if reconcile.reason else ""
        raise Conflict(f"Environment {environment.key} is paused{reason}. Set spec.reconcile.mode to enforce first.")


def _add_node(intent: AddNode, fleet: Fleet) -> Edit:
    path = f"nodes/{intent.name}.yaml"
    taken = intent.name in fleet.nodes_by_slug or any(stalled.path == path for stalled in fleet.stalled)
    if taken:
        raise Conflict(f"{path} exists. Choose another name, or edit the document.")
    for node in fleet.nodes.values():
        if node.manifest.spec.address == intent.address and node.manifest.spec.ssh.port == intent.port:
            raise Conflict(f"Node {node.slug} has the address {intent.address} already. One host is one node.")
    document = {
        "apiVersion": API_VERSION,
        "kind": "Node",
        "metadata": {"id": str(intent.node_id), "name": intent.name},
        "spec": {
            "address": intent.address,
            "ssh": {"host_key": intent.host_key, "port": intent.port, "user": intent.user},
        },
    }
    return Edit(message=f"Add node {intent.name}", create={path: document})
