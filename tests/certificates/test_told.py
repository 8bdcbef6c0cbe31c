"""What `trueup status` says of the wildcard."""

from __future__ import annotations

from reconciler.cli.preview import lines

WELL = {
    "name": "*.preview.example.com",
    "ends_at": "2026-08-01T10:00:00+00:00",
    "ends_soon": False,
    "trouble": None,
    "nodes": {},
}


def test_nothing_is_said_of_what_is_well_or_not_wanted() -> None:
    assert lines(WELL) == []
    assert lines(None) == []


def test_each_trouble_has_a_line() -> None:
    found = {**WELL, "ends_soon": True, "trouble": "refused", "nodes": {"web-1": "it is not there any more"}}
    assert lines(found) == [
        "certificate of *.preview.example.com: ends 2026-08-01T10:00",
        "certificate of *.preview.example.com: refused",
        "certificate of *.preview.example.com on web-1: it is not there any more",
    ]
