"""What the forge was told of the latest commits, as ``trueup upstream status`` shows it."""

from __future__ import annotations

from typing import Any

from reconciler.home import Home
from reconciler.records.announcements import Announcement

_SHOWN = 5


def report(home: Home) -> dict[str, Any] | None:
    """For programs; None: no forge is declared."""
    declared = home.state.fleet().platform.spec.forge
    if declared is None:
        return None
    return {
        "kind": declared.kind.value,
        "repository": declared.repository,
        "commits": [_data(one) for one in home.records.announcements.latest(_SHOWN)],
    }


def lines(home: Home) -> list[str]:
    """For people: what was not told yet in any case, else the latest."""
    declared = home.state.fleet().platform.spec.forge
    if declared is None:
        return []
    rows = home.records.announcements.latest(_SHOWN)
    name = f"{declared.kind.value} {declared.repository}"
    failing = [row for row in rows if row.error]
    if failing:
        row = failing[0]
        again = row.next_attempt_at.isoformat(timespec="seconds")
        return [
            f"FORGE {name}: {row.commit[:12]} not told after {row.attempts} attempts, again at {again}. {row.error}"
        ]
    told = [row for row in rows if row.sent]
    if not told:
        return [f"forge {name}: nothing was told yet"]
    return [f"forge {name}: {row.commit[:12]} {row.sent.state}, {row.sent.description}" for row in told if row.sent]


def _data(row: Announcement) -> dict[str, Any]:
    return {
        "commit": row.commit,
        "taken_at": row.taken_at.isoformat(),
        "told": row.told.model_dump(mode="json") if row.told else None,
        "sent": row.sent.model_dump(mode="json", include={"state", "description"}) if row.sent else None,
        "request": row.request or None,
        "attempts": row.attempts,
        "next_attempt_at": row.next_attempt_at.isoformat(),
        "error": row.error,
    }
