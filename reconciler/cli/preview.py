"""The certificate of preview URLs, as `trueup status` tells it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from reconciler.home import Home

if TYPE_CHECKING:
    from reconciler.certificates.kept import Notes


def row(home: Home) -> dict[str, Any] | None:
    """Until when it is good, and what is wrong with it; None where none is wanted."""
    fleet = home.state.fleet()
    spec = fleet.platform.spec
    if spec.preview_tls is None:
        return None
    # Here: most fleets have none, and what reads certificates takes a tenth of a command's start to load.
    from reconciler.certificates.kept import Kept

    kept = Kept(home.settings.preview)
    wildcard, notes = kept.wildcard(), kept.notes()
    has_it = wildcard is not None and wildcard.domain == spec.preview_domain
    names = {str(node.id): node.slug for node in fleet.nodes.values()}
    ends = wildcard.ends_at if wildcard and has_it else None
    return {
        "name": f"*.{spec.preview_domain}",
        "ends_at": ends.isoformat() if ends else None,
        "ends_soon": bool(wildcard and has_it and wildcard.ends_soon(datetime.now(UTC))),
        "trouble": notes.failure.message if notes.failure else None,
        "nodes": {
            **_drifted(home, notes, names),
            **{names.get(node, node): one.message for node, one in notes.refused.items()},
        },
    }


def _drifted(home: Home, notes: Notes, names: dict[str, str]) -> dict[str, str]:
    """What was changed on nodes since they were given it."""
    from reconciler.certificates.giving import drift

    observations = home.state.current().observations
    found = {node: drift(given, observations.get(UUID(node))) for node, given in notes.delivered.items()}
    return {names[node]: told for node, told in found.items() if told and node in names}


def lines(found: dict[str, Any] | None) -> list[str]:
    """For a person: what is wrong."""
    if found is None:
        return []
    trouble = [f"certificate of {found['name']}: ends {found['ends_at'][:16]}"] if found["ends_soon"] else []
    trouble += [f"certificate of {found['name']}: {found['trouble']}"] if found["trouble"] else []
    refused = found["nodes"].items()
    return [*trouble, *(f"certificate of {found['name']} on {node}: {message}" for node, message in refused)]
