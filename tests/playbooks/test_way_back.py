"""What is decided, without a database, while changes are taken out of a site's tables."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from tests.playbooks.node_modules import load

migration, tables, stored = map(load, ("content.migration", "content.rewrite_tables", "content.stored_objects"))


def back(table: str, size: int = 10) -> str:
    row = tables.Row(["`id` = 1"], [("v", b"x" * size, b"y")])
    return str(row.back(f"`wp_0123456789ab`.`{table}`"))


def test_large_rows_take_their_time_and_nobodys_patience() -> None:
    """A gigabyte of pages, some megabytes at once, on a slow disk."""
    patience, part = tables.Patience(), [back("wp_postmeta", 200_000)] * 20
    for _ in range(300):
        patience.spent(1.6, part)
    assert not patience.is_used_up
    patience.spent(62, [back("wp_other")])
    assert patience.is_used_up
    patience.spent(1.6, part)
    assert not patience.is_over_for(part[0])


def test_a_large_row_has_the_time_that_it_needs_when_nobody_has_patience_any_more() -> None:
    cells = tables.InUse.__new__(tables.InUse)
    cells.patience = tables.Patience()
    cells.patience.spent(62, [back("wp_other")])
    assert cells.bounded(back("wp_posts")).startswith("SET STATEMENT max_statement_time = 2, lock_wait_timeout = 1, ")
    assert "max_statement_time = 10, " in cells.bounded(back("wp_posts", 4 << 20))[:60]


def test_rows_that_wait_together_do_not_take_what_is_left_for_others() -> None:
    """A trigger that sleeps a little less than it may, in each of the statements that are sent together."""
    patience, slow, quick = tables.Patience(), back("wp_sleeping"), back("wp_posts")
    patience.spent(20 * 9.9, [slow] * 20)
    assert (patience.is_over_for(slow), patience.is_over_for(quick)) == (True, False)


def test_rows_that_took_their_time_leave_as_much_to_those_that_meet_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred rows by whose key there is no index take minutes; then somebody else has a row for a moment."""
    now, said = [0.0], list[int]()

    def together(statements: list[str]) -> None:
        said.append(len(statements))
        now[0] += 10
        if len(said) == 9:
            raise tables.sql.SqlError("Deadlock found", 1213)

    monkeypatch.setattr(tables, "time", SimpleNamespace(monotonic=lambda: now[0]))
    cells = tables.InUse.__new__(tables.InUse)
    cells.patience, cells.session = tables.Patience(), SimpleNamespace(together=together)
    cells.write([back("wp_log")] * 200)
    assert said == [20] * 11, "what was written is not written anew"


def test_a_table_whose_rows_were_sent_with_anothers_is_not_given_up_for_it() -> None:
    patience = tables.Patience()
    slow, quick = back("wp_sleeping"), back("wp_posts")
    patience.spent(62, [slow, quick])
    assert [patience.is_used_up, patience.is_over_for(slow), patience.is_over_for(quick)] == [True, False, False]
    patience.spent(2, [slow])
    patience.spent(0.01, [quick])
    assert (patience.is_over_for(slow), patience.is_over_for(quick)) == (True, False)


def test_what_is_set_aside_has_a_name_that_nothing_has_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence that an earlier failed update left there is no table, and in the way of one all the same."""
    there = [("wp_gone", "SEQUENCE"), ("wp_gone__2", "SYSTEM VERSIONED"), ("wp_prices", "BASE TABLE")]

    def rows(query: str) -> list[tuple[str]]:
        return [(name,) for name, kind in there if kind == "BASE TABLE" or "BASE TABLE" not in query]

    root = SimpleNamespace(say=lambda *_: None, rows=rows)
    monkeypatch.setattr(migration.sql, "root", lambda: root)
    one = migration.Migration(SimpleNamespace(database="wp_0123456789ab"), "wp_0123456789ab_before")
    names = [one._place_aside(table) for table in ("wp_gone", "wp_prices", "wp_new")]
    assert names == [f"`wp_0123456789ab_failed`.`{name}`" for name in ("wp_gone__3", "wp_prices__2", "wp_new")]


def test_packages_that_a_site_made_go_with_all_else_that_would_be_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any database user may make them, in Oracle's mode, and they are dropped in that mode alone."""
    found = [("PACKAGE", "p"), ("VIEW", "v"), ("PACKAGE BODY", "p"), ("FUNCTION", "f"), ("TRIGGER", "t")]
    said: list[str] = []
    session = SimpleNamespace(say=lambda *statements: said.extend(statements))
    monkeypatch.setattr(stored, "_beside_tables", lambda *_: found)
    monkeypatch.setattr(stored.sql, "within", lambda _: session)
    monkeypatch.setattr(stored.sql, "opened", lambda _: nullcontext(session))
    stored.drop("d")
    assert said == [
        "DROP TRIGGER IF EXISTS `d`.`t`",
        "DROP VIEW IF EXISTS `d`.`v`",
        "DROP FUNCTION IF EXISTS `d`.`f`",
        "SET SESSION sql_mode = 'ORACLE'",
        "DROP PACKAGE BODY IF EXISTS `d`.`p`",
        "DROP PACKAGE IF EXISTS `d`.`p`",
    ]
