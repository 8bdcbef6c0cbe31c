"""A report as one HTML page without anything from elsewhere: for a browser, a mail or paper, light or dark."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.status import DriftStatus
from reconciler.reports import wording
from reconciler.reports.causes import told
from reconciler.reports.elements import Html, join, tag
from reconciler.reports.model import (
    Difference,
    EnvironmentDrift,
    NodeDrift,
    Report,
    SubjectStatus,
    name_of,
)
from reconciler.reports.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy that the page needs."""
_WORDS = {DriftStatus.CLEAN: "clean", DriftStatus.DRIFTED: "drifted", DriftStatus.UNKNOWN: "not all known"}


def html(report: Report, news: wording.News | None = None) -> str:
    """The page; what changed, as ``news`` tells it, stands on top of it."""
    head = join(
        (
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark">'),
            tag("title", f"Drift report, {told(report.created_at)}: {_WORDS[report.status]}"),
            Html(f"<style>{STYLE}</style>"),
        )
    )
    body = tag("main", *_header(report), *_news(news or wording.News(report.changes)), *_sections(report))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _header(report: Report) -> Iterator[Html]:
    pill = tag("span", _WORDS[report.status], class_=f"pill {report.status}")
    yield tag("header", tag("h1", "Drift report ", pill), tag("p", wording.occasion(report), class_="quiet"))
    yield tag("p", report.headline, class_="headline")
    yield _bar(report)
    counts = report.counts
    tiles = (
        ("environments", counts.environments, ""),
        ("nodes", counts.nodes, ""),
        ("drifted", counts.drifted, "drifted"),
        ("unknown", counts.unknown, "unknown"),
        ("paused", counts.paused, "paused"),
        ("waiting", counts.waiting, "waiting"),
        ("stalled", counts.stalled, "stalled"),
    )
    yield tag("ul", *(_tile(*tile) for tile in tiles), class_="tiles")


def _tile(word: str, count: int, kind: str) -> Html:
    return tag("li", tag("b", str(count)), f" {word}", class_=kind if count else "none")


def _bar(report: Report) -> Html:
    """The share of each status, seen at a glance."""
    total = len(report.subjects)
    parts = [
        (status, sum(one.status is status for one in report.subjects))
        for status in (SubjectStatus.DRIFTED, SubjectStatus.UNKNOWN, SubjectStatus.STALLED, SubjectStatus.CLEAN)
    ]
    spans = [
        tag("span", class_=status.value, style=f"width:{100 * count / total:.2f}%", title=f"{count} {status}")
        for status, count in parts
        if count
    ]
    return tag("div", *spans, class_="bar", role="img", aria_label=report.headline)


def _news(news: wording.News) -> Iterator[Html]:
    lines = [
        tag("li", tag("b", wording.MARKS[one.kind]), tag("b", one.subject), tag("span", one.text), class_=one.kind)
        for one in news.changes
    ]
    first = [tag("p", wording.FIRST, class_="quiet")] if news.is_first else []
    if first or lines:
        yield tag("section", tag("h2", "What changed"), *first, tag("ul", *lines, class_="news"))


def _sections(report: Report) -> Iterator[Html]:
    for group in wording.groups(report):
        cards = [_card(subject) for subject in group.subjects]
        yield tag("section", tag("h2", f"{group.title} ", tag("small", str(len(cards)))), *cards)
    if report.stalled:
        yield tag("section", tag("h2", "Stalled documents ", tag("small", str(len(report.stalled)))), _stalled(report))
    if report.orphans:
        lines = [tag("li", tag("code", one.environment_id), f" on {one.node}") for one in report.orphans]
        note = tag("p", "On a node, and no document defines them. Nothing is done about that.", class_="quiet")
        yield tag("section", tag("h2", "Orphans ", tag("small", str(len(lines)))), note, tag("ul", *lines))
    if ignored := [tag("li", line) for line in wording.ignored(report.ignored)]:
        yield tag("section", tag("h2", "Ignored by rule"), tag("ul", *ignored))
    if clean := wording.clean(report):
        names = tag("p", *_spaced(tag("code", name) for name in clean), class_="names")
        yield tag("details", tag("summary", f"Clean ({len(clean)})"), names)


def _spaced(items: Iterator[Html]) -> Iterator[str]:
    for item in items:
        yield item
        yield " "


def _card(subject: EnvironmentDrift | NodeDrift) -> Html:
    title: list[str] = [name_of(subject)]
    if isinstance(subject, EnvironmentDrift):
        title += [tag("small", f" {subject.site_name} · on {subject.node}")]
    else:
        title += [tag("small", f" node, environments: {subject.environments}")]
    parts = [tag("h3", *title)]
    if subject.differences:
        parts.append(_table(subject.differences))
    if remarks := [tag("li", remark) for remark in wording.remarks(subject)]:
        parts.append(tag("ul", *remarks))
    return tag("article", *parts, class_=f"card {subject.status}")


def _why(one: Difference) -> str:
    return wording.with_hold(one.evidence or one.cause, one)


def _table(differences: tuple[Difference, ...]) -> Html:
    head = tag("tr", *(tag("th", word, scope="col") for word in ("what", "desired", "observed", "since", "comes from")))
    rows = [
        tag(
            "tr",
            tag("td", tag("code", one.field), data_label="what"),
            tag("td", tag("code", one.desired or "—"), data_label="desired"),
            tag("td", tag("code", one.observed or "—"), data_label="observed"),
            tag("td", told(one.since), *_well(one), data_label="since"),
            tag("td", tag("b", wording.ORIGINS[one.origin]), " ", _why(one), data_label="comes from"),
        )
        for one in differences
    ]
    return tag("table", tag("thead", head), tag("tbody", *rows))


def _well(difference: Difference) -> Iterator[Html]:
    if difference.well_at:
        yield tag("small", f" well {told(difference.well_at)}")


def _stalled(report: Report) -> Html:
    lines = [
        tag(
            "li",
            tag("code", f"{one.path}:{one.line or 1}"),
            f" {one.message}",
            tag("small", f" since {told(one.since)}" if one.since else ""),
        )
        for one in report.stalled
    ]
    return tag("ul", *lines)
