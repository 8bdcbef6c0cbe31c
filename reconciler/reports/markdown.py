"""A report as Markdown. What others wrote is in code spans, or escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reconciler.reports import wording
from reconciler.reports.causes import told
from reconciler.reports.model import EnvironmentDrift, NodeDrift, Report, name_of

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")
_LEADING = re.compile(r"^(?:(\d+)(?=[.)])|(?=[#+=-]))")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def markdown(report: Report, news: wording.News | None = None) -> str:
    """The whole report; ``news``: what is told to have changed. A quiet fleet's is one line."""
    if report.is_quiet and news is None:
        return f"**{escaped(report.headline)}**\n"
    lines = ["# Drift report", "", f"**{escaped(report.headline)}**", "", f"Made {escaped(wording.occasion(report))}."]
    if changed := [f"- {escaped(line)}" for line in news or wording.News(report.changes)]:
        lines += ["", "## What changed", "", *changed]
    for group in wording.groups(report):
        lines += ["", f"## {group.title}"]
        for subject in group.subjects:
            lines += ["", *_subject(subject)]
    lines += _rest(report)
    return "\n".join(lines) + "\n"


def _subject(subject: EnvironmentDrift | NodeDrift) -> Iterator[str]:
    where = f" on {code(subject.node)}" if isinstance(subject, EnvironmentDrift) else ""
    yield f"### {code(name_of(subject))}{where}"
    if subject.differences:
        yield ""
        yield "| what | desired | observed | since | comes from |"
        yield "|---|---|---|---|---|"
        for one in subject.differences:
            cells = (code(one.field), _value(one.desired), _value(one.observed))
            yield f"| {' | '.join(cells)} | {wording.since(one)} | {escaped(wording.origin(one))} |"
    remarks = [f"- {escaped(remark)}" for remark in wording.remarks(subject)]
    if remarks:
        yield ""
    yield from remarks


def _rest(report: Report) -> Iterator[str]:
    if report.stalled:
        yield from ("", "## Stalled documents", "")
        for one in report.stalled:
            since = f" (since {told(one.since)})" if one.since else ""
            yield f"- {code(f'{one.path}:{one.line or 1}')} {escaped(one.message)}{since}"
    if report.orphans:
        yield from ("", "## Orphans", "")
        for orphan in report.orphans:
            yield f"- {code(orphan.environment_id)} on {code(orphan.node)}: no document defines it"
    if ignored := [f"- {line}" for line in wording.ignored(report.ignored)]:
        yield from ("", "## Ignored by rule", "", *ignored)
    if clean := wording.clean(report):
        yield from ("", f"Clean: {len(clean)} more.")


def _value(value: str | None) -> str:
    return "" if value is None else code(value)


def code(text: str) -> str:
    """``text`` as a code span, safe in a table's cell too."""
    return f"`{text.replace('|', '¦').replace('`', 'ˋ') or ' '}`"


def escaped(text: str) -> str:
    """``text`` with nothing in it that Markdown or HTML would read as more than text."""
    plain = _SPECIAL.sub(r"\\\1", text.translate(_ENTITIES))
    return _LEADING.sub(r"\1\\", plain)
