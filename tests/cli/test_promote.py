"""What ``trueup promote --preview`` shows of what a site named."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from reconciler.cli.output import Format
from reconciler.cli.promote import selectors, tell
from reconciler.core.errors import BackupGateUnmet, Invalid
from reconciler.core.promotion_preview import Preview
from reconciler.home import clock
from reconciler.operations.promotion_preview import Previewed
from tests.api.promotable import PREVIEW

FOUND = Previewed(
    uuid4(),
    uuid4(),
    BackupGateUnmet("Environment shop/production has no full backup younger than 60 minutes. Make one, then promote."),
    Preview.model_validate(PREVIEW),
    clock(),
    uuid4(),
)


def test_each_thing_is_told_with_why(capsys: pytest.CaptureFixture[str]) -> None:
    tell(FOUND, Format.TABLE)
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert ["option", "blogname", "changed", "-", "changed", "in", "the", "source"] in lines
    assert ["order", "-", "changed", "3", "changed", "in", "the", "target"] in lines
    assert "Is left behind, although the source changed it: 21 products." in shown
    assert "Blocks" not in shown
    assert "Hat \\x1b[31m" in shown
    assert "\x1b" not in shown
    assert "refused now: Environment shop/production has no full backup" in shown


def test_a_program_gets_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    tell(FOUND, Format.JSON)
    told = json.loads(capsys.readouterr().out)
    assert told["unmet"]["code"] == "backup_gate_unmet"
    assert told["preview"]["left_behind"][0]["details"] == ["price"]


def test_what_was_chosen_is_looked_at_before_anything_is_asked_for() -> None:
    assert selectors(["plugin:hats", "option:a", "group:code"]) == ("plugin:hats", "option:a", "group:code")
    for wrong in ("hats", "plugin:../x", "group:posts", "option:a b", "option:a\n"):
        with pytest.raises(Invalid, match="neither group:NAME"):
            selectors([wrong])
    with pytest.raises(Invalid, match="too many"):
        selectors(["group:code"] * 101)
