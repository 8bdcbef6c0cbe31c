"""Modules that are given secrets write nothing of what they are given into a node's journal."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler.paths import collection, share
from tests.playbooks.node_modules import load

load("digest")
KeptCode = importlib.import_module("ansible_collections.trueup.wordpress.plugins.plugin_utils.kept_code").KeptCode
MODULES = sorted(path.stem for path in (collection() / "plugins" / "modules").glob("*.py"))
OWN = "trueup.wordpress."
SECRETIVE = ("trueup_backup", "trueup_preview", "trueup_import", "trueup_environment", "declared")
"""Variables with presigned addresses, keys, or options and addresses that somebody's password may be in."""


@pytest.mark.parametrize("module", MODULES)
def test_each_module_of_ours_is_told_to_log_nothing(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    action = importlib.import_module(f"ansible_collections.trueup.wordpress.plugins.action.{module}").ActionModule
    given = {"backup": {"uploads": {"files.tar.zst": ["https://s3.example.com/?X-Amz-Signature=abc"]}}}
    monkeypatch.setattr(action.__mro__[action.__mro__.index(KeptCode) + 1], "_update_module_args", _log_as_usual)
    action._update_module_args(object.__new__(action), f"{OWN}{module}", given, {})
    assert given["_ansible_no_log"] is True


def test_the_module_heeds_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ansible's own base class does with it, in the version that is installed."""
    from ansible.module_utils import basic

    written: list[str] = []
    monkeypatch.setattr(basic.AnsibleModule, "_log_to_syslog", lambda _self, message: written.append(message))
    monkeypatch.setattr(basic, "has_journal", False)
    for is_silent in (False, True):
        arguments = {"ANSIBLE_MODULE_ARGS": {"url": "https://x/?s=abc", "_ansible_no_log": is_silent}}
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps(arguments).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy")
        basic.AnsibleModule({"url": {"type": "str"}}).log("more")
        assert any("abc" in one for one in written) is not is_silent
        written.clear()


def test_no_module_of_others_is_given_what_holds_a_secret() -> None:
    """They would log it."""
    found = list(_tasks())
    assert len(found) > 30, "the tasks are found"
    told = [
        f"{path.name}: {task.get('name')}"
        for path, task in found
        for module, arguments in task.items()
        if "." in module and not module.startswith(OWN) and any(name in json.dumps(arguments) for name in SECRETIVE)
    ]
    assert told == []


def _log_as_usual(_self: Any, _name: str, arguments: dict[str, Any], *_more: Any) -> None:
    arguments["_ansible_no_log"] = False


def _tasks() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each task of the playbooks and roles, blocks taken apart."""
    yaml = YAML(typ="safe")
    for path in (share() / "playbooks").glob("*.yml"):
        for play in yaml.load(path):
            for part in ("pre_tasks", "tasks", "post_tasks", "handlers"):
                yield from ((path, task) for task in _apart(play.get(part, [])))
    for part in ("tasks", "handlers"):
        for path in (collection() / "roles").glob(f"*/{part}/*.yml"):
            yield from ((path, task) for task in _apart(yaml.load(path) or []))


def _apart(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        for part in ("block", "rescue", "always"):
            yield from _apart(task.get(part, []))
        yield task
