"""The releases of an environment that its node still has, as the node told when it was last asked."""

from __future__ import annotations

from uuid import UUID

from pydantic import ValidationError

from reconciler.core.entries import Document
from reconciler.core.errors import Conflict
from reconciler.core.manifests import Release
from reconciler.core.observed import Applied
from reconciler.core.release_order import release_order
from reconciler.operations.history import declared_release
from reconciler.state import State

_FIELDS = ("source_type", "source_ref", "revision", "origin", "made_from", "scope")


def earlier_release(state: State, environment_id: UUID, release_id: UUID | None) -> tuple[Release, str]:
    """The release to go back to and its WordPress version; without an id, the first of ``ways_back``.

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
    wanted = str(release_id) if release_id else next(iter(ways_back(state, environment_id)), None)
    if wanted is None:
        raise Conflict(
            f"The node of {environment.key} has no release that is older than {declared}: what else it has was left "
            f"before, or came later. Name one of them to go there all the same ({', '.join(earlier)}), or deploy one."
        )
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


def ways_back(state: State, environment_id: UUID) -> list[str]:
    """The releases on the node that the declared one took the place of, the latest first; not those that were left.

    The store's history says which one was declared in place of which, also where they were taken back by a revert.
    What it never declared was applied by hand, or is from before the document was moved: that comes last.
    """
    fleet = state.fleet()
    environment = fleet.environment(environment_id)
    applied = _applied(state, environment_id)
    declared = str(fleet.release_id(environment))
    there = [one for one in applied.releases if one != declared and _is_id(one)] if applied else []
    if not there:
        return []
    initial = str(fleet.initial_release_id(environment))
    documents = state.repository.naming(environment.path, (*there, declared))
    ids = (declared_release(one) or initial for one in documents if isinstance(one, Document))
    # It stands at the end whatever came of the others: it is what the document says.
    order = release_order((*(one.lower() for one in ids), declared))
    known = {*order.standing, *order.left}
    return [
        *(one for one in reversed(order.standing[:-1]) if one in there),
        *(one for one in reversed(there) if one not in known),
    ]


def _is_id(word: str) -> bool:
    """Whether it is one as we write it; a node is a stranger, and this becomes a pattern."""
    try:
        return str(UUID(word)) == word
    except ValueError:
        return False


def _applied(state: State, environment_id: UUID) -> Applied | None:
    fleet = state.fleet()
    node = fleet.node_of(fleet.environment(environment_id))
    seen = state.records.observations.latest(node.id) if node else None
    there = seen.observed.environments.get(str(environment_id)) if seen and seen.observed else None
    return there.applied if there else None
