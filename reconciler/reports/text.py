"""A report for a terminal or the plain part of a mail. A quiet fleet's is one line."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.visible import visible
from reconciler.reports import wording
from reconciler.reports.causes import told
from reconciler.reports.model import EnvironmentDrift, NodeDrift, Report, name_of


def text(report: Report, news: wording.News | None = None) -> str:
    """The report as lines of text; ``news``: what is told to have changed, else what did since the report before."""
    if report.is_quiet and news is None:
        return f"{report.headline}\n"
    lines = [f"Drift report: {report.headline}", f"Made {wording.occasion(report)}."]
    if changed := list(news or wording.News(report.changes)):
        lines += ["", "WHAT CHANGED", *changed]
    for group in wording.groups(report):
        lines += ["", group.title.upper(), *(line for subject in group.subjects for line in _subject(subject))]
    lines += _rest(report)
    return "\n".join(map(visible, lines)) + "\n"


def _subject(subject: EnvironmentDrift | NodeDrift) -> Iterator[str]:
    yield f"{name_of(subject)} (on {subject.node})" if isinstance(subject, EnvironmentDrift) else f"node {subject.node}"
    for one in subject.differences:
        values = f"  desired {one.desired}  ↔  observed {one.observed}" if one.desired or one.observed else ""
        yield f"  {one.field}{values}  [{one.cause}]"
        yield f"    {wording.since(one)}; comes from: {wording.origin(one)}"
    for remark in wording.remarks(subject):
        yield f"  {remark}"


def _rest(report: Report) -> Iterator[str]:
    if report.stalled:
        yield from ("", "STALLED DOCUMENTS")
        for one in report.stalled:
            since = f" (since {told(one.since)})" if one.since else ""
            yield f"{one.path}:{one.line or 1}: {one.message}{since}"
    if report.orphans:
        yield from ("", "ORPHANS")
        for orphan in report.orphans:
            yield f"{orphan.environment_id} on {orphan.node}: no document defines it; nothing is done about it."
    if ignored := list(wording.ignored(report.ignored)):
        yield from ("", "IGNORED BY RULE", *ignored)
    if clean := wording.clean(report):
        yield from ("", f"CLEAN: {len(clean)} more.")
