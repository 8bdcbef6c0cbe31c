"""What every intent is made of: the edit that it becomes, and the guards that refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.errors import Conflict, NoNodeAvailable
from reconciler.core.fields import Strict
from reconciler.core.fleet import Fleet
from reconciler.core.manifests import Release
from reconciler.core.policy import ReconcileMode, effective_mode
from reconciler.core.status import EnvironmentStatus

KeyPath = tuple[str, ...]
Statuses = Mapping[UUID, EnvironmentStatus]


@dataclass(frozen=True)
class Edit:
    """What one commit does: whole new documents, single fields of those that are there, and removals."""

    message: str
    create: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Path to the new document; the path must be free."""
    assign: Mapping[str, Mapping[KeyPath, Any]] = field(default_factory=dict)
    """Path to the fields to set; all else in the document stays byte for byte."""
    unset: Mapping[str, frozenset[KeyPath]] = field(default_factory=dict)
    """Path to the fields that go, where they are there; all else stays, as ever."""
    rewrite: Mapping[str, bytes] = field(default_factory=dict)
    """Path to the whole text that a document had once."""
    delete: frozenset[str] = frozenset()
    """Documents that go."""


class BaseIntent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def refuse_untouchable(environment: EnvironmentEntry, now: datetime) -> None:
    """Raises Conflict when nothing may be done to the environment: its document is stalled, or says paused."""
    if environment.stalled:
        raise Conflict(f"{environment.stalled} Correct the document first.")
    reconcile = environment.manifest.spec.reconcile
    if effective_mode(reconcile, now) is ReconcileMode.PAUSED:
        reason = f" ({reconcile.reason})" if reconcile.reason else ""
        raise Conflict(f"Environment {environment.key} is paused{reason}. Set spec.reconcile.mode to enforce first.")


def refuse_failed(environment: EnvironmentEntry, statuses: Statuses) -> None:
    if statuses.get(environment.id) is EnvironmentStatus.FAILED:
        raise Conflict(f"Environment {environment.key} is failed. Look at its last job, then reset it.")


def refuse_unready(environment: EnvironmentEntry, statuses: Statuses, now: datetime) -> None:
    """Raises Conflict unless the environment may take a change of its code or content now."""
    refuse_untouchable(environment, now)
    refuse_failed(environment, statuses)
    status = statuses.get(environment.id, EnvironmentStatus.ACTIVE)
    if status is not EnvironmentStatus.ACTIVE:
        raise Conflict(f"Environment {environment.key} is {status}. Wait for its job to finish.")


def node_for(name: str | None, fleet: Fleet) -> NodeEntry:
    """The node of this name if it takes environments; without a name, the one with the fewest."""
    if name and (named := fleet.nodes_by_slug.get(name)) and _takes_environments(named):
        return named
    if name:
        raise NoNodeAvailable(f"Node {name} is not there to take a site. See the list of nodes.")
    nodes = [node for node in fleet.nodes.values() if _takes_environments(node)]
    if not nodes:
        raise NoNodeAvailable("No active node can take a site. Add one with `trueup node add`.")
    return min(nodes, key=lambda node: (len(fleet.environments_by_node.get(node.slug, ())), node.slug))


def _takes_environments(node: NodeEntry) -> bool:
    return node.stalled is None and node.manifest.spec.state == "active"


def refuse_taken_url(url: str, fleet: Fleet) -> None:
    if any(fleet.preview_url(environment) == url for environment in fleet.environments.values()):
        raise Conflict(f"The preview URL {url} is taken. Try again: the next environment gets another id.")


def refuse_taken_path(path: str, what: str, fleet: Fleet) -> None:
    # A document that stalls still owns its path: it may be one character away from being a good one.
    if any(stalled.path == path for stalled in fleet.stalled):
        raise Conflict(f"{path} exists, and stalls. Correct it, or choose another slug for the {what}.")


def plain(model: Strict | None) -> dict[str, Any] | None:
    """A part of a document as it is written: what says nothing is left out."""
    return None if model is None else model.model_dump(mode="json", exclude_none=True, exclude_defaults=False)


def no_versions(environment: EnvironmentEntry) -> dict[str, frozenset[KeyPath]]:
    """What goes with other code: which versions the last update resulted in says nothing of it."""
    return {environment.path: frozenset({("spec", "versions")})}


def derived_release(former: Release | None, id_: UUID, *, origin: str, made_from: UUID, **more: Any) -> dict[str, Any]:
    """A release that an operation makes of another: where the code once came from is kept."""
    source = former.model_dump(include={"source_type", "source_ref", "revision"}) if former else {}
    return without_nothing(id=id_, **source, origin=origin, made_from=made_from, **more)


def without_nothing(**fields: Any) -> dict[str, Any]:
    """The fields that have a value, as a document holds them."""
    return {
        name: str(value) if isinstance(value, UUID) else value for name, value in fields.items() if value is not None
    }
