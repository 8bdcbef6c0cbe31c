"""When the wildcard is asked for and delivered again, from what the control plane keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from reconciler.certificates.kept import Delivery, Kept, Notes, Wildcard
from reconciler.core.certificates import WAITS
from tests.lab.acme import certificate, key_pem

NOW = datetime.now(UTC)


def _wildcard(*, days: float, age_days: float) -> Wildcard:
    key, leaf = certificate("*.preview.example.com", days=days, age_days=age_days)
    chain = leaf.public_bytes(serialization.Encoding.PEM).decode()
    return Wildcard("preview.example.com", "https://acme.example.com/dir", chain, key_pem(key).decode())


@pytest.mark.parametrize(
    ("days", "age_days", "due"), [(31, 59, False), (29, 61, True), (3, 3, False), (1.9, 4.1, True)]
)
def test_it_is_due_when_a_third_of_its_life_is_left(days: float, age_days: float, due: bool) -> None:
    assert _wildcard(days=days, age_days=age_days).is_due(datetime.now(UTC)) is due


@pytest.mark.parametrize(
    ("days", "age_days", "soon"), [(15, 75, False), (13, 77, True), (3, 3, False), (1.9, 4.1, True)]
)
def test_a_person_is_warned_before_it_ends(days: float, age_days: float, soon: bool) -> None:
    assert _wildcard(days=days, age_days=age_days).ends_soon(datetime.now(UTC)) is soon


def test_the_same_is_tried_later_and_anything_else_at_once() -> None:
    notes = Notes().failed("refused", "these settings", NOW)
    assert notes.failure
    assert notes.failure.holds_back("these settings", NOW + WAITS[0] - timedelta(seconds=1))
    assert not notes.failure.holds_back("these settings", NOW + WAITS[0])
    assert not notes.failure.holds_back("other settings", NOW)
    again = notes.failed("refused", "these settings", NOW).failure
    other = notes.failed("refused", "other settings", NOW).failure
    assert again
    assert other
    assert (again.count, other.count) == (2, 1)
    assert again.holds_back("these settings", NOW + WAITS[0])


def test_a_node_is_given_it_again_after_a_day_or_when_it_is_another_machine() -> None:
    given = Delivery("print", "key", NOW)
    assert given.holds("print", "key", NOW + timedelta(hours=23))
    assert not given.holds("print", "key", NOW + timedelta(days=1))
    assert not given.holds("print", "another key", NOW)
    assert not given.holds("another print", "key", NOW)


def test_what_is_kept_is_read_again_and_forgotten(tmp_path: Path) -> None:
    kept, wildcard = Kept(tmp_path / "preview"), _wildcard(days=60, age_days=30)
    assert (kept.wildcard(), kept.notes()) == (None, Notes())
    notes = Notes().given("a", Delivery("print", "key", NOW)).not_given("b", "busy", "print", NOW)
    notes = notes.failed("refused", "settings", NOW)
    kept.keep(wildcard)
    kept.note(notes)
    assert (kept.wildcard(), kept.notes(), notes.failures) == (wildcard, notes, 2)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "preview").iterdir()} == {0o600}
    kept.forget()
    assert (kept.wildcard(), kept.notes()) == (None, Notes())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"domain": "d"}', '{"domain": "d", "directory": "", "chain": "x", "key": ""}']
)
def test_what_cannot_be_read_is_not_there(tmp_path: Path, text: str) -> None:
    for name in ("certificate.json", "notes.json"):
        (tmp_path / name).write_text(text)
    assert (Kept(tmp_path).wildcard(), Kept(tmp_path).notes()) == (None, Notes())
