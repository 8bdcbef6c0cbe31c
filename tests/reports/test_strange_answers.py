"""A report comes of whatever a node answers, and nothing in it is obeyed by a terminal."""

from __future__ import annotations

import re

from reconciler.core.observed import ObservedNode
from reconciler.reports.html import html
from reconciler.reports.markdown import markdown
from reconciler.reports.model import SubjectStatus
from reconciler.reports.text import text
from tests.core.test_node_answer import FLEET, KEYS, UNUSABLE, read_answer, said, strange_answers
from tests.reports.fleets import World

STRANGE = 150


def world(answer: object) -> World:
    found = World(FLEET)
    found.answers["web-1"] = answer  # type: ignore[assignment]
    if isinstance(answer, ObservedNode):
        found.seen[FLEET.nodes_by_slug["web-1"].id] = answer
    return found


def test_whatever_stands_anywhere_a_report_comes_of_it() -> None:
    for answer in strange_answers(STRANGE):
        report = world(answer).report()
        told = text(report) + markdown(report) + html(report)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", told)


def test_what_cannot_be_used_is_unknown_and_the_others_are_not() -> None:
    report = world(read_answer(said(UNUSABLE["a text"]))).report()
    status = {one.environment: one.status for one in report.environments}
    assert status[KEYS[1]] is SubjectStatus.UNKNOWN
    assert status[KEYS[0]] is SubjectStatus.CLEAN
    assert "cannot be used" in text(report)
