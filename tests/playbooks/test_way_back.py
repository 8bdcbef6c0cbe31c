"""What is decided, without a database, while changes are taken out of a site's tables."""

from types import SimpleNamespace

import pytest

from tests.playbooks.node_modules import load

migration = load("content.migration")


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
