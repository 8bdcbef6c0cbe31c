"""The same report as text, Markdown, HTML, webhook and mail; whatever others wrote stays text in all of them."""

from __future__ import annotations

import email
import hashlib
import hmac
import json
import re
from email import policy
from html.parser import HTMLParser

import pytest

from reconciler.core.observed import Unreachable
from reconciler.reports.comparing import changes
from reconciler.reports.findings import Check
from reconciler.reports.html import html
from reconciler.reports.markdown import code, escaped, markdown
from reconciler.reports.messages import Message, mail, signature, summary, webhook_body
from reconciler.reports.model import Report, ReportTrigger
from reconciler.reports.text import text
from reconciler.reports.wording import News
from tests.core import documents as d
from tests.core.fake_node import NOW
from tests.reports.fleets import World, documents

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><script src=//evil.example/x.js>",
    "`code` | cell <!channel> [a](javascript:x) ![i](//evil.example/p.png)",
    "{{ 7*7 }} ${jndi:x} &lt;b&gt;",
    "a\r\nBcc: everybody@example.com\r\n\r\nbody",
    "\x1b]0;title\x07\x1b[31m",
)
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "h3", "p", "span", "div", "ul"),
    *("li", "b", "small", "section", "article", "table", "thead", "tbody", "tr", "th", "td", "code", "details"),
    "summary",
}
ATTRIBUTES = {
    "charset",
    "name",
    "content",
    "lang",
    "class",
    "style",
    "title",
    "role",
    "aria-label",
    "scope",
    "data-label",
}


def hostile(word: str) -> Report:
    """A report with that word wherever somebody else may have written one."""
    found = documents()
    found["sites/acme/site.yaml"]["metadata"]["name"] = re.sub(r"[\x00-\x1f]", " ", word).strip()[:100]
    path = "sites/acme/environments/production.yaml"
    found[path]["spec"]["reconcile"] = {"mode": "report", "reason": word}
    world = World(d.fleet_of(found), trigger=ReportTrigger.REQUEST, requested_by=word)
    world.break_file()
    found_by_check = {
        "field": f"uploads {word}",
        "desired": "absent",
        "observed": word,
        "cause": "changed on the node",
        "heals": False,
    }
    world.history[world.environment().id] = [Check(NOW, [found_by_check])]
    world.touch_node(hold=word)
    world.answers["web-2"] = Unreachable(since=NOW, reason=word)
    return world.report()


class Page(HTMLParser):
    """What a browser would make of a page: its elements, attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def message(report: Report) -> Message:
    return Message("k" * 64, report, News(changes(None, report)))


@pytest.mark.parametrize("render", [text, markdown])
def test_a_clean_fleet_is_one_line(render: object) -> None:
    shown = render(World().report())  # type: ignore[operator]
    assert shown.count("\n") == 1
    assert "All clean: 3 environments on 2 nodes" in shown


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_html_has_our_elements_and_no_others(word: str) -> None:
    report = hostile(word)
    shown = html(report, News(changes(None, report)))
    page = Page(shown)
    assert page.tags <= TAGS
    assert page.attributes <= ATTRIBUTES
    assert report.environments[0].differences[-1].observed in page.text
    assert report.environments[0].site_name in page.text
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", shown)


def test_html_needs_nothing_from_elsewhere() -> None:
    shown = html(hostile("plain"))
    assert not re.search(r"url\(|@import|src=|href=|https?:", shown)
    assert "prefers-color-scheme:dark" in shown
    assert "@media print" in shown


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_text_keeps_each_thing_on_its_line(word: str) -> None:
    report = hostile(word)
    assert len(text(report).splitlines()) == len(text(hostile("plain")).splitlines())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text(report))


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_markdown_keeps_its_shape(word: str) -> None:
    shown, plain = (markdown(hostile(one)) for one in (word, "plain"))
    # Fewer than 600 is what a line is cut to.
    assert [line[:2] for line in shown.splitlines()] == [line[:2] for line in plain.splitlines()]
    rows = [line.count("|") for line in shown.splitlines() if line.startswith("|")]
    assert set(rows) == {6}
    outside = re.sub(r"`[^`\n]*`", "", shown)
    assert "<" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("2026-01", "2026-01"),
        ("a_b*c", r"a\_b\*c"),
        ("<b>&", "&lt;b&gt;&amp;"),
    ],
)
def test_markdown_escapes(word: str, said: str) -> None:
    assert escaped(word) == said
    assert code("a`b|c") == "`aˋb¦c`"


def test_every_shape_tells_what_is_to_be_told() -> None:
    world = World()
    path = world.break_file()
    world.answers["web-2"] = Unreachable(since=NOW, reason="Connection refused.")
    report = world.report()
    since = "seen since 2026-11-22 12:00 UTC"
    page = Page(html(report)).text.replace("ffffffffffff2026", "ffffffffffff seen since 2026")
    for shown in (text(report), markdown(report), page):
        for word in (path, "acme/production", "ffffffffffff", since, "The loop does it"):
            assert word in shown.replace("\\", ""), word
        assert "Unreachable since 2026-11-22 12:00 UTC, never seen before." in shown
        assert "Connection refused." in shown


def test_a_webhook_says_it_to_people_and_programs() -> None:
    world = World(trigger=ReportTrigger.REQUEST, requested_by="ops@example.com")
    path = world.break_file()
    body = json.loads(webhook_body(message(world.report())))
    assert body["event"] == "drift-report"
    assert (body["trigger"], body["requested_by"], body["delivery"]) == ("request", "ops@example.com", "k" * 64)
    assert [(one["kind"], one["subject"]) for one in body["changes"]] == [("new", "acme/production")]
    lines = body["text"].splitlines()
    assert lines[0] == "Drift report: 3 environments on 2 nodes: 1 drifted."
    assert "asked for by ops@example.com" in lines[1]
    assert lines[2].startswith(f"+ acme/production: file {path}")
    assert body["markdown"].startswith("# Drift report\n")
    assert f"## What changed\n\n- + acme/production: file {path}" in body["markdown"].replace("\\", "")
    assert body["report"]["headline"] in lines[0]


def test_a_chat_service_is_not_made_to_call_everybody() -> None:
    body = json.loads(webhook_body(message(hostile("<!channel> <@U1>"))))
    assert "&lt;!channel&gt;" in body["text"]
    assert "<" not in body["text"]


def test_the_signature_is_hmac_sha256_of_the_body() -> None:
    body = webhook_body(message(World().report()))
    expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert signature(body, "s3cret") == f"sha256={expected}"
    assert signature(body, "other") != f"sha256={expected}"


def test_a_summary_names_only_so_many_changes() -> None:
    report = World().report()
    (one, *_) = changes(None, hostile("plain"))
    many = Message("k", report, News(tuple(one for _ in range(25))))
    lines = summary(many).splitlines()
    assert (len(lines), lines[-1]) == (13, "… and 15 more")


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_a_mail_has_our_headers_and_no_others(word: str) -> None:
    report = hostile(word)
    raw = mail(message(report), "trueup@example.com", "ops@example.com").as_bytes()
    parsed = email.message_from_bytes(raw, policy=policy.default)
    assert parsed["To"] == "ops@example.com"
    assert parsed["Bcc"] is None
    assert parsed["Message-ID"] == f"<{'k' * 64}@example.com>"
    assert parsed.get_content_type() == "multipart/alternative"
    plain, page = (part.get_content() for part in parsed.iter_parts())
    assert "WHAT CHANGED" in plain
    assert Page(page).tags <= TAGS
