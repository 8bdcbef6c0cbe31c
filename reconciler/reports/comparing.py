"""What changed between two reports: what a message begins with, and whether one is sent at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.reports.model import Difference, EnvironmentDrift, NodeDrift, Report, SubjectStatus, Told, name_of

Facts = Mapping[tuple[str, str], str]
"""What a report tells, by subject and by what it is about, in words. Moments that only pass are not in it."""


def changes(before: Report | None, after: Report) -> tuple[Told, ...]:
    """What ``after`` tells otherwise than ``before``; all of it, where there is none before."""
    then, now = _facts(before) if before else {}, _facts(after)
    found = [*_new(then, now), *_gone(then, now)]
    return tuple(sorted(found, key=lambda told: (told.subject, told.text, told.kind)))


def _new(then: Facts, now: Facts) -> Iterator[Told]:
    for key, text in now.items():
        if then.get(key) != text:
            yield Told(kind="changed" if key in then else "new", subject=key[0], text=text)


def _gone(then: Facts, now: Facts) -> Iterator[Told]:
    for key, text in then.items():
        if key not in now:
            yield Told(kind="gone", subject=key[0], text=text)


def _facts(report: Report) -> Facts:
    found: dict[tuple[str, str], str] = {}
    for subject in report.subjects:
        name = name_of(subject)
        found |= {(name, about): text for about, text in _facts_of(subject)}
    for stalled in report.stalled:
        found[stalled.path, "stalled"] = f"stalled: {stalled.message}"
    for orphan in report.orphans:
        found[orphan.node, f"orphan {orphan.environment_id}"] = f"orphan {orphan.environment_id}"
    return found


def _facts_of(subject: EnvironmentDrift | NodeDrift) -> Iterator[tuple[str, str]]:
    # A silent node is told once; its environments follow from it.
    if subject.status is SubjectStatus.UNKNOWN and (isinstance(subject, NodeDrift) or subject.unknown_since is None):
        yield "unknown", subject.note or "unknown"
    if subject.paused is not None:
        yield "paused", f"paused: {subject.paused}"
    for difference in subject.differences:
        yield f"difference {difference.field}", sentence(difference)
    if subject.more_differences:
        yield "more", f"{subject.more_differences} more differences"
    for notice in subject.notices:
        yield f"notice {notice.partition(':')[0]}", notice


def sentence(difference: Difference) -> str:
    """A difference in words, without when it came."""
    values = ""
    if difference.desired is not None or difference.observed is not None:
        values = f": desired {difference.desired}, observed {difference.observed}"
    held = f"; {difference.held}" if difference.held else ""
    return f"{difference.field}{values} ({difference.cause}{held})"
