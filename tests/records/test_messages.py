"""What is kept of a failure: short, and with nothing that a terminal obeys or a database refuses."""

from __future__ import annotations

import re

import pytest

from reconciler.records.outcomes import MESSAGE_LIMIT, shortened


@pytest.mark.parametrize("text", ["\x00", "\x1b[2J", "\x9b31m", "a\u202eb", "\ud800", "\r", "\x00" * 100_000])
def test_no_message_holds_what_is_obeyed(text: str) -> None:
    kept = shortened(f"web-1: Do it: {text}\n\tmore")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800]", kept)
    assert kept.encode()
    assert kept.endswith("\n\tmore"), "lines and tabs stay"
    assert len(kept) <= MESSAGE_LIMIT
