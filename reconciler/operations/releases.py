"""The releases of an environment that its node still has, as the node told when it was last asked."""

from __future__ import annotations

from uuid import UUID

from pydantic import ValidationError

from reconciler.core.errors import Conflict
from reconciler.core.manifests import Release
from reconciler.core.observed import Applied
from reconciler.state import State

_FIELDS = ("source_type", "source_ref", "revision", "origin", "made_from", "scope")


def earlier_release(state: State, environment_id: UUID, release_id: UUID | None) -> tuple[Release, str]:
    """The release to go back to and its WordPress version; without an id, the one applied before the declared one.

    Raises:
        Conflict: the node has none, has not told of it, or it is the declared one.
    """
    fleet = state.fleet()
    environment = fleet.environment(environment_id)
    applied = _applied(state, environment_id)
    declared = str(fleet.release_id(environment))
    earlier = [one for one in applied.releases if one != declared] if applied else []
    if applied is None or not earlier:
        raise Conflict(f"The node of {environment.key} has no earlier release. Deploy one instead.")
    wanted = str(release_id) if release_id else earlier[-1]
    if wanted == declared:
        raise Conflict(f"Release {wanted} is the one that {environment.key} has. Name another one.")
    details = applied.release_details.get(wanted)
    if wanted not in earlier or details is None:
        raise Conflict(f"The node of {environment.key} does not have release {wanted}. It has {', '.join(earlier)}.")
    try:
        release = Release.model_validate({"id": wanted, **{key: details.get(key) for key in _FIELDS}})
    except ValidationError as error:
        raise Conflict(f"What the node tells of release {wanted} cannot be declared. Deploy it again.") from error
    return release, str(details["wordpress_version"])


def _applied(state: State, environment_id: UUID) -> Applied | None:
    fleet = state.fleet()
    node = fleet.node_of(fleet.environment(environment_id))
    seen = state.records.observations.latest(node.id) if node else None
    there = seen.observed.environments.get(str(environment_id)) if seen and seen.observed else None
    return there.applied if there else None
