"""What changed between two reports, and what did not."""

from __future__ import annotations

from datetime import timedelta

from reconciler.core.observed import Unreachable
from reconciler.reports.comparing import changes
from reconciler.reports.text import text
from tests.core.fake_node import NOW
from tests.reports.fleets import World


def told(world: World, later: World) -> list[str]:
    return [f"{one.kind} {one.subject}: {one.text}" for one in changes(world.report(), later.report())]


def test_time_that_passes_is_no_change() -> None:
    world = World()
    world.break_file()
    world.touch_node("web-2", hold="we look at it")
    assert changes(world.report(), world.later(days=1).report()) == ()


def test_a_difference_comes_changes_and_goes() -> None:
    world = World()
    later = world.later(days=1)
    path = later.break_file()
    (new,) = told(world, later)
    assert new.startswith(f"new acme/production: file {path}: desired ")
    assert new.endswith("observed ffffffffffff (changed on the node)")
    again = later.later(days=1)
    again.touch(files={path: None})
    (changed,) = told(later, again)
    assert changed.startswith("changed acme/production: ")
    assert changed.endswith("observed missing (changed on the node)")
    (gone,) = told(later, world)
    assert gone == new.replace("new ", "gone ", 1)


def test_a_node_that_falls_silent_is_told_once_for_all_that_is_on_it() -> None:
    world = World()
    silent = world.later(days=1)
    silent.answers["web-1"] = Unreachable(since=NOW, reason="Connection refused.")
    assert told(world, silent) == ["new web-1: Node web-1 does not answer: Connection refused."]
    assert told(silent, silent.later(days=1)) == []


def test_pauses_orphans_and_stalled_documents_are_changes() -> None:
    world = World()
    later = world.later(hours=1)
    orphan = "22222222-2222-4222-8222-222222222222"
    there = later.answer("web-2").environments
    later.touch_node("web-2", hold="no", environments={**there, orphan: next(iter(there.values()))})
    assert told(world, later) == [
        "new initech/production: paused: The node is on hold: no",
        f"new web-2: orphan {orphan}",
        "new web-2: paused: The node is on hold: no",
    ]


def test_without_a_report_before_all_is_new() -> None:
    world = World()
    assert changes(None, world.report()) == ()
    world.break_file()
    assert [one.kind for one in changes(None, world.report())] == ["new"]


def test_when_a_report_is_made_does_not_matter() -> None:
    world = World(now=NOW + timedelta(seconds=1))
    assert changes(World().report(), world.report()) == ()


def test_what_the_next_report_says_of_what_was_healed() -> None:
    world = World()
    path = world.break_file()
    later = world.later(days=1)
    later.touch(files=World().answer("web-1").environments[str(world.environment().id)].files)
    report = later.report()
    [change] = report.changes
    assert (change.kind, change.subject) == ("gone", "acme/production")
    assert path in change.text
    assert report.headline.endswith("; 1 resolved since the report before.")
    assert text(report) == f"{report.headline}\n"
    assert later.later(days=1).report().changes == ()
