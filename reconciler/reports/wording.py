"""Words and groups that every shape of a report has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reconciler.reports.causes import told
from reconciler.reports.model import (
    Difference,
    EnvironmentDrift,
    Ignored,
    NodeDrift,
    Origin,
    Report,
    ReportHead,
    ReportTrigger,
    SubjectStatus,
    Told,
    name_of,
)

ORIGINS = {
    Origin.DESIRED_MOVED: "desired state moved",
    Origin.OPERATOR: "an operator's playbook",
    Origin.WORDPRESS_UPDATE: "WordPress updated itself",
    Origin.LOGIN: "an administrator's session",
    Origin.SSH: "an ssh user",
    Origin.UPGRADED: "Trueup was upgraded",
    Origin.UNFINISHED: "an apply has not finished",
    Origin.MISSING: "not there yet",
    Origin.SERVICE: "a service does not run",
    Origin.CONTENT: "changed on both sides",
    Origin.UNKNOWN: "unknown",
}
MARKS = {"new": "+", "gone": "−", "changed": "~"}
FIRST = "This is the first report that is sent here."


@dataclass(frozen=True)
class Group:
    """Subjects that a report tells of under one heading."""

    title: str
    subjects: tuple[EnvironmentDrift | NodeDrift, ...]


def groups(report: Report) -> Iterator[Group]:
    """Drifted, unknown, paused and noticed, as far as there are any; what is told further up is not told again."""
    rest = list(report.subjects)
    for title, belongs in _GROUPS:
        found = tuple(one for one in rest if belongs(one))
        rest = [one for one in rest if not belongs(one)]
        if found:
            yield Group(title, found)


def clean(report: Report) -> tuple[str, ...]:
    """The names of all that nothing is to be told of."""
    told_of = {one.id for group in groups(report) for one in group.subjects}
    return tuple(name_of(one) for one in report.subjects if one.id not in told_of and one.status is SubjectStatus.CLEAN)


_GROUPS: tuple[tuple[str, Callable[[EnvironmentDrift | NodeDrift], bool]], ...] = (
    ("Drifted", lambda one: one.status is SubjectStatus.DRIFTED),
    ("Unknown", lambda one: one.status is SubjectStatus.UNKNOWN),
    ("Paused", lambda one: one.paused is not None and one.status is not SubjectStatus.STALLED),
    ("To look at", lambda one: bool(one.notices)),
)


def occasion(report: ReportHead) -> str:
    """When and why the report was made."""
    why = "scheduled" if report.trigger is ReportTrigger.SCHEDULE else f"asked for by {report.requested_by or 'nobody'}"
    return f"{told(report.created_at)}, {why}, at revision {report.revision[:12]}"


def since(difference: Difference) -> str:
    """When it came, as closely as it is known."""
    if difference.well_at is None:
        return f"seen since {told(difference.since)}"
    return f"seen since {told(difference.since)}, well {told(difference.well_at)}"


def origin(difference: Difference) -> str:
    """Where it comes from, what tells so, and who has it left as it is."""
    evidence = f": {difference.evidence}" if difference.evidence else ""
    return with_hold(f"{ORIGINS[difference.origin]}{evidence}", difference)


def with_hold(said: str, difference: Difference) -> str:
    """What is said of a difference, and then who has it left as it is."""
    return f"{said.rstrip('.')}; {difference.held}" if difference.held else said


def remarks(subject: EnvironmentDrift | NodeDrift) -> Iterator[str]:
    """What is told of a subject beside its differences."""
    if subject.note:
        yield subject.note
    if subject.unknown_since:
        yield f"Unreachable since {told(subject.unknown_since)}{_last_seen(subject)}."
    if subject.paused:
        yield f"Paused: {subject.paused}"
    if subject.more_differences:
        yield f"{subject.more_differences} more differences are not named."
    if subject.would:
        yield f"A reconcile: {subject.would}"
    yield from subject.notices


def _last_seen(subject: EnvironmentDrift | NodeDrift) -> str:
    return f", last seen {told(subject.observed_at)}" if subject.observed_at else ", never seen before"


def ignored(found: Ignored) -> Iterator[str]:
    """What rules left out, counted."""
    if found.moved:
        yield f"{found.moved} that only a copy changed, which is what a copy is for"
    if found.stayed:
        yield f"{found.stayed} that only the environment behind a copy changed"
    if found.protected:
        yield f"{found.protected} rows of tables that a promotion's preset protects"


@dataclass(frozen=True)
class News:
    """What changed since the last report that the reader saw."""

    changes: tuple[Told, ...]
    is_first: bool = False

    def __iter__(self) -> Iterator[str]:
        if self.is_first:
            yield FIRST
        for change in self.changes:
            yield f"{MARKS[change.kind]} {change.subject}: {change.text}"
