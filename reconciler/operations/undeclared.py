"""Environments whose document a push took away, as the revert of their creation does: all of them is still there.

A document that disappears removes nothing, and one that is empty or cannot be read has not disappeared. Somebody's
word removes it, with a backup first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, NotFound
from reconciler.core.fleet import Fleet
from reconciler.state import State


@dataclass(frozen=True)
class Undeclared:
    """``commit`` took the document away. ``fleet``: today's, with the environment in it as it was last declared."""

    environment: EnvironmentEntry
    commit: str
    fleet: Fleet
    confirmed: bool
    """The commit says in a trailer that the environment shall go."""


def undeclared(state: State, key: str) -> Undeclared:
    """The environment that was ``key``.

    Raises:
        NotFound: nothing was ever named so, or it is declared.
        Conflict: its id is declared elsewhere, its last document was unfit, or another one was made from it.
    """
    site, _, slug = key.partition("/")
    path, fleet = f"sites/{site}/environments/{slug}.yaml", state.fleet()
    newest = next(state.repository.changes(path, 1), None)
    if newest is None or newest[1] is not None:
        raise NotFound(f"No environment is named {key}, and none was. `trueup status` shows which there are.")
    commit = newest[0]
    snapshot = state.repository.read(f"{commit.id}^")
    before = state.fleet_of(snapshot.revision, snapshot.documents)
    environment = before.environments_by_key.get(key)
    if environment is None or environment.stalled:
        raise Conflict(f"{path} was unfit when {commit.id[:9]} took it away. Revert that, correct it, remove it again.")
    _refuse_needed(environment, fleet)
    with_it = replace(
        fleet,
        sites={**before.sites, **fleet.sites},
        environments={**fleet.environments, environment.id: environment},
    )
    return Undeclared(environment, commit.id, with_it, key in commit.confirmed)


def _refuse_needed(environment: EnvironmentEntry, fleet: Fleet) -> None:
    if environment.id in fleet.environments:
        other = fleet.environments[environment.id].key
        raise Conflict(f"{environment.key} is declared as {other} now. Remove that one, if it is to go.")
    copies = [one.key for one in fleet.environments.values() if one.manifest.spec.source_environment == environment.id]
    if copies:
        raise Conflict(f"{environment.key} is what {', '.join(sorted(copies))} was made from. Remove that first.")
