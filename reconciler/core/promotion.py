"""Whether changes may move up now: the two gates of a promotion, and what a comparison of contents says. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reconciler.core.changes import Cause
from reconciler.core.drills import LastDrill
from reconciler.core.errors import BackupGateUnmet, DriftGateUnmet, DrillGateUnmet
from reconciler.core.jobs import JobType
from reconciler.core.observed import Count, Line, Path
from reconciler.core.promotion_preview import Preview
from reconciler.core.visible import visible

BACKUP_AGE = timedelta(minutes=60)
NAMED = 20
"""Differences of a kind that a check names; the rest is counted."""
LONGEST_WHY = 400
_TOLD = frozenset({Cause.REFUSED, Cause.EXPIRING})
UNCHANGING = frozenset(
    {
        JobType.DRIFT_CHECK,
        JobType.BACKUP,
        JobType.DRILL,
        JobType.CACHE_PURGE,
        JobType.HEALTH_CHECK,
        JobType.SEARCH,
        JobType.NODE_OBSERVE,
        JobType.DRIFT_REPORT,
        JobType.REPORT_DELIVERY,
    }
)
"""Jobs that leave an environment as it was: a drift check is not older than they are."""
HELD = "names posts or terms that are not the same in the target"
MADE = "comes along with a plugin that becomes active"
CAUSES = {"moves": "changed in this environment", "stays": "changed in the target", "conflicts": "changed in both"}


_Keys = Annotated[tuple[Path | int, ...], Field(max_length=1_000)]


@dataclass(frozen=True)
class Checked:
    """A drift check of the source, as far as the gate asks."""

    at: datetime
    target: str | None
    """The id of the environment that its content was compared with; None: its content was not compared."""
    conflicts: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What is known when a promotion is asked for."""

    source: str
    target: str
    target_id: str
    check: Checked | None
    last_change: datetime | None
    """Of the source; None: nothing has changed it since it is known."""
    backup_at: datetime | None
    """When the newest completed full backup of the target was completed."""
    drill_within: timedelta | None = None
    """How long ago the target's last drill may be; None: none is asked for."""
    drill: LastDrill | None = None
    """The last drill of a full backup of the target."""


def refuse_unmet(evidence: Evidence, now: datetime) -> None:
    """Raises the gate that is not met; there is no way past it.

    Raises:
        DriftGateUnmet: no drift check of the source since its last change, or one that found conflicts.
        BackupGateUnmet: no completed full backup of the target in the last hour.
        DrillGateUnmet: a drill is asked for, and the target's last one failed, is too long ago, or never was.
    """
    check, source, target = evidence.check, evidence.source, evidence.target
    if check is None or check.target != evidence.target_id:
        raise DriftGateUnmet(
            f"Environment {source} was not compared with {target} yet. Check it for drift, then promote."
        )
    if evidence.last_change is not None and check.at <= evidence.last_change:
        raise DriftGateUnmet(f"Environment {source} changed after its last drift check. Check it again, then promote.")
    if check.conflicts:
        more = len(check.conflicts) - NAMED
        named = ", ".join(check.conflicts[:NAMED]) + (f" and {more} more" if more > 0 else "")
        raise DriftGateUnmet(
            f"{source} and {target} both changed {named}. Make them the same on both sides, check {source} for drift "
            "again, then promote."
        )
    if evidence.backup_at is None or now - evidence.backup_at >= BACKUP_AGE:
        raise BackupGateUnmet(
            f"Environment {target} has no full backup younger than 60 minutes. Make one, then promote."
        )
    _refuse_undrilled(evidence, now)


def _refuse_undrilled(evidence: Evidence, now: datetime) -> None:
    if evidence.drill_within is None:
        return
    target, drill = evidence.target, evidence.drill
    what = "A promotion to it asks for a full backup that was restored in a drill"
    then = f"Run `trueup backup drill {target}`, then promote."
    # One that is yet to come was written by a clock that was ahead: nobody knows how long ago it was.
    if drill is None or drill.at > now:
        raise DrillGateUnmet(f"No backup of environment {target} was ever drilled. {what}. {then}")
    if not drill.passed:
        raise DrillGateUnmet(f"The last drill of a backup of {target} failed: {drill.error} {what} and passed. {then}")
    if now - drill.at > evidence.drill_within:
        days = evidence.drill_within.days
        raise DrillGateUnmet(f"The last drill of a backup of {target} is more than {days} days old. {what}. {then}")


class ComparedPart(BaseModel):
    """A table or a tree of files as a node compared its two sides: all are counted, the first are named."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    counts: Annotated[dict[Literal["moves", "stays", "conflicts"], Count], Field(max_length=3)]
    moves: _Keys
    stays: _Keys
    conflicts: _Keys


class PairedRow(BaseModel):
    """A row that stays, as the other half of what belongs together cannot move."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    table: Line
    key: Path
    why: Line


class Comparison(BaseModel):
    """What a node says of two environments, by table."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    written: Annotated[dict[Line, ComparedPart], Field(max_length=10_000)]
    code: ComparedPart
    preview: Preview | None = None
    held: _Keys = ()
    """Options that stay, as the posts or terms that they name are not the same on both sides."""
    paired: Annotated[tuple[PairedRow, ...], Field(max_length=1_000)] = ()
    made: Annotated[tuple[Line, ...], Field(max_length=1_000)] = ()
    """Tables that the target lacks, and that come along with a plugin that becomes active there."""
    protected: Annotated[dict[Line, dict[Literal["source", "target"], Count]], Field(max_length=10_000)]


def differences(comparison: Comparison, target_id: str) -> tuple[dict[str, Any], ...]:
    """What a drift check keeps of a comparison: the summary first, then what is named, in the shape of a change."""
    parts = {**comparison.written, "files": comparison.code}
    counts = {name: dict(part.counts) for name, part in parts.items() if any(part.counts.values())}
    summary = {
        "field": "content",
        "compared_with": target_id,
        "counts": counts,
        "protected": {name: dict(sides) for name, sides in comparison.protected.items()},
        "desired": None,
        "observed": None,
        "cause": "since the copy was made",
        "heals": False,
    }
    return (summary, *_named(parts), *_held(comparison))


def _held(comparison: Comparison) -> Iterator[dict[str, Any]]:
    found = [(f"content wp_options: {name}", "stays", HELD) for name in comparison.held[:NAMED]]
    found += [
        (f"content {one.table}: {one.key}", "stays", visible(one.why, LONGEST_WHY)) for one in comparison.paired[:NAMED]
    ]
    found += [(f"content {table}", "moves", MADE) for table in comparison.made[:NAMED]]
    for field, content, cause in found:
        told = {"field": field, "content": content, "cause": cause}
        yield {**told, "desired": None, "observed": None, "heals": False}


def _named(parts: Mapping[str, ComparedPart]) -> Iterator[dict[str, Any]]:
    for kind, cause in CAUSES.items():
        for name, part in sorted(parts.items()):
            keys: tuple[str | int, ...] = getattr(part, kind)
            for key in keys[:NAMED]:
                found = {"field": f"content {name}: {key}", "content": kind, "cause": cause}
                yield {**found, "desired": None, "observed": None, "heals": False}


def checked(at: datetime, found: Sequence[Mapping[str, Any]]) -> Checked:
    """What the gate asks of the differences that a drift check kept."""
    target = next((one["compared_with"] for one in found if "compared_with" in one), None)
    conflicts = tuple(str(one["field"]).removeprefix("content ") for one in found if one.get("content") == "conflicts")
    return Checked(at, target, conflicts)


def is_drift(difference: Mapping[str, Any]) -> bool:
    """Whether a difference makes an environment drifted: what only one side changed is what a copy is for.

    A certificate that nobody gave, or that ends soon, is told and is no drift: nothing was changed.
    """
    if difference.get("cause") in _TOLD:
        return False
    return difference.get("content") == "conflicts" or not {"content", "compared_with"} & difference.keys()
