"""The order in which nginx's files are put on a node: who is cut off in between leaves an nginx that starts."""

from __future__ import annotations

import re

import yaml

from reconciler.paths import collection

NODE = collection() / "roles" / "node"
DEFINED = re.compile(r"^map (?:\"[^\"]*\"|\S+) \$(trueup_[a-z_]+[a-z]) \{|\(\?<(trueup_[a-z_]+)>", re.MULTILINE)
USED = re.compile(r"\$(trueup_[a-z_]+[a-z])\b")


def test_a_variable_is_defined_before_it_is_used() -> None:
    """An upgrade brings variables to files that every server block of the node includes already."""
    tasks = yaml.safe_load((NODE / "tasks" / "nginx.yml").read_text())
    entries = tasks[0]["trueup.wordpress.files"]["entries"]
    known: set[str] = set()
    used: set[str] = set()
    for name in (entry["template"] for entry in entries if "template" in entry):
        text = re.sub(r"^\s*#.*$", "", (NODE / "templates" / name).read_text(), flags=re.MULTILINE)
        known |= {one for found in DEFINED.findall(text) for one in found if one}
        asked = set(USED.findall(text))
        assert asked <= known, f"{name} uses {sorted(asked - known)}"
        used |= asked
    assert len(used) > 20
