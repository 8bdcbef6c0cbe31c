"""``If-Match``: a change is made only to what the client saw, told apart by its state version."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import PreconditionFailed
from reconciler.core.fleet import Fleet
from reconciler.state import State


@dataclass(frozen=True)
class Precondition:
    """The resource must have one of these state versions. None: any; it must only be there."""

    kind: Literal["site", "environment"]
    id: UUID
    versions: frozenset[int] | None

    def stored(self) -> dict[str, Any]:
        """As a job's row keeps it."""
        versions = None if self.versions is None else sorted(self.versions)
        return {"kind": self.kind, "id": str(self.id), "versions": versions}

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Self | None:
        if stored is None:
            return None
        versions = stored["versions"]
        return cls(stored["kind"], UUID(stored["id"]), None if versions is None else frozenset(versions))


def refuse_moved(precondition: Precondition | None, fleet: Fleet, state: State, pending: Collection[str] = ()) -> None:
    """Hold the precondition against ``fleet``; ``pending`` are paths that commits to come change before it.

    Raises:
        NotFound: the resource is not there.
        PreconditionFailed: it has another version by now.
    """
    if precondition is None:
        return
    path, environments = resource_of(precondition, fleet)
    if precondition.versions is None:
        return
    # A fleet that stands on commits to come has the history of the commit below them.
    history = state.repository.history(fleet.revision.partition("+")[0]).get(path)
    rows = (state.records.statuses.get(environment.id) for environment in environments)
    version = (history.commits if history else 1) + sum(row.version for row in rows if row)
    if path in pending or version not in precondition.versions:
        raise PreconditionFailed(
            f"The {precondition.kind} has changed since: its state_version is {version}. Look at it again, then decide."
        )


def resource_of(precondition: Precondition, fleet: Fleet) -> tuple[str, Iterable[EnvironmentEntry]]:
    """The path of its document, and the environments whose status counts.

    Raises:
        NotFound: it is not there.
    """
    if precondition.kind == "environment":
        environment = fleet.environment(precondition.id)
        return environment.path, (environment,)
    site = fleet.site(precondition.id)
    return site.path, fleet.environments_by_site.get(site.slug, ())
