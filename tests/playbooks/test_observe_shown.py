"""What a site calls its files reaches the terminal of whoever runs `observe.yml` as text, never as what that obeys."""

import json
import re

import pytest
import yaml

from reconciler.paths import share

VARIABLES = yaml.safe_load((share() / "playbooks" / "observe.yml").read_text())[0]["vars"]


def shown(name: str) -> str:
    """The name as the playbook has it shown: its filters' work on what the probe prints."""
    text = re.sub(VARIABLES["observe_obeyed"], VARIABLES["observe_written"], json.dumps({"path": name}))
    return str(json.loads(text)["path"])


@pytest.mark.parametrize("sign", ["\u202e", "\x9b", "\u200b", "\x7f", "\u2066", "\ufeff"])
@pytest.mark.parametrize("before", ["", "x", "\\", "\\\\", "\\\\\\", "\\u202e"])
def test_a_sign_that_a_terminal_obeys_is_written_out(sign: str, before: str) -> None:
    found = shown(f"{before}{sign}y")
    assert sign not in found
    assert found == f"{before}\\u{ord(sign):04x}y"


@pytest.mark.parametrize("name", ["plain", "gr\u00fc\u00df.php", "\\u202e", "\\\\u202e", "\U0001f980", "a\\b"])
def test_all_else_is_shown_as_it_is(name: str) -> None:
    assert shown(name) == name
