"""The code of our modules is kept on the node, compiled: sent once, and never used when it is not as it was kept."""

import base64
import importlib
import io
import os
import zipfile
from pathlib import Path

import pytest

from tests.playbooks.environments import Hosting
from tests.playbooks.node_modules import load

load("digest")
PLUGIN_UTILS = "ansible_collections.trueup.wordpress.plugins.plugin_utils"
node = importlib.import_module(f"{PLUGIN_UTILS}.kept_code_node")
kept = importlib.import_module(f"{PLUGIN_UTILS}.kept_code")

CODE = "/var/lib/trueup/code"
PRODUCTION = "acme/production"
FILES = {"package/__init__.py": b"", "package/one.py": b"VALUE = 1\n"}


def packed(files: dict[str, bytes]) -> str:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return base64.b64encode(found.getvalue()).decode()


def built(files: dict[str, bytes], **changed: object) -> bytes:
    """As Ansible writes a module down, with arguments."""
    values = {
        "ansible_module": "purge",
        "module_fqn": "package.one",
        "profile": "legacy",
        "rlimit_nofile": 0,
        "params": '{"a": "it\'s =\\n"}',
        "extensions": {},
        "zip_data": packed(files),
        **changed,
    }
    lines = "\n".join(f"{name}={value!r}," for name, value in values.items())
    call = (
        f'\n\nif __name__ == "__main__":\n    _ansiballz_main(\n{lines}\ndate_time=datetime.datetime(2026, 1, 1),\n)\n'
    )
    return b"#!/usr/bin/python3\nimport this" + call.encode()


def test_what_is_sent_names_the_code_and_holds_it_only_when_it_is_missing() -> None:
    few, whole = (kept.rewritten(built(FILES), whole=one, keep=True) for one in (False, True))
    digest = node.content_digest(FILES)
    assert few.startswith(b"#!/usr/bin/python3\n")
    assert f"run('{digest}', None, {{".encode() in few
    assert packed(FILES).encode() not in few
    assert packed(FILES).encode() in whole
    assert compile(few, "sent", "exec")
    assert b'{"a": "it\'s =' in few.replace(b"\\'", b"'")


@pytest.mark.parametrize("change", [{"package/one.py": b"VALUE = 2\n"}, {"package/two.py": b""}])
def test_other_code_is_another_copy(change: dict[str, bytes]) -> None:
    assert node.content_digest(FILES) != node.content_digest({**FILES, **change})
    assert node.content_digest(FILES) == node.content_digest(dict(reversed(FILES.items())))


@pytest.mark.parametrize(
    "data",
    [b"#!/bin/sh\necho binary", built(FILES, strange=1), built(FILES, rlimit_nofile=1024)],
    ids=["no wrapper", "another wrapper", "limited"],
)
def test_what_is_not_known_goes_ansibles_own_way(data: bytes) -> None:
    assert kept.rewritten(data, whole=False, keep=True) is None


def test_code_that_is_not_what_was_announced_is_not_compiled() -> None:
    archive = base64.b64decode(packed(FILES))
    assert set(node.compiled(archive, node.content_digest(FILES))) == {"package", "package.one"}
    with pytest.raises(ValueError, match="another one than was announced"):
        node.compiled(archive, "0" * 64)


def test_only_what_was_used_last_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "CODE", str(tmp_path / "code"))
    for number in range(node.KEPT + 3):
        node.keep(f"{node.CODE}/{number}", {"one": (False, compile("1", "one", "exec"))})
        os.utime(f"{node.CODE}/{number}", (number, number))  # times of one moment are the same
    assert len(list((tmp_path / "code").iterdir())) == node.KEPT
    assert (tmp_path / "code" / str(node.KEPT + 2)).stat().st_mode & 0o777 == 0o600


# On a node


def copies(hosting: Hosting) -> dict[str, str]:
    """Name and sha256 of each copy."""
    lines = hosting.node.ssh(f"cd {CODE} && sha256sum -- *").stdout.splitlines()
    return {line.split()[1]: line.split()[0] for line in lines}


def is_whole(hosting: Hosting, name: str) -> bool:
    told = hosting.node.ssh(f"head -n1 {CODE}/{name}; tail -n+2 {CODE}/{name} | sha256sum").stdout.split()
    return told[0] == told[1]


@pytest.mark.lab
def test_a_module_runs_out_of_the_copy_that_its_first_run_left(hosting: Hosting) -> None:
    hosting.run("purge", PRODUCTION).raise_if_failed()
    assert hosting.apply(PRODUCTION).raise_if_failed().changed == 0
    before = copies(hosting)
    assert len(before) >= 2
    assert hosting.node.ssh(f"stat --format='%a %U' {CODE} {CODE}/*").stdout.splitlines() == [
        "700 root",
        *["600 root"] * len(before),
    ]
    hosting.run("purge", PRODUCTION).raise_if_failed()
    assert hosting.apply(PRODUCTION).raise_if_failed().changed == 0
    assert copies(hosting) == before


@pytest.mark.lab
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param("truncate --size=-1 {}", marks=pytest.mark.long),
        pytest.param("truncate --size=0 {}", marks=pytest.mark.long),
        pytest.param("printf x | dd of={} bs=1 seek=5000 conv=notrunc status=none", marks=pytest.mark.long),
        pytest.param("chmod 0666 {}", marks=pytest.mark.long),
        pytest.param("chown www-data {}", marks=pytest.mark.long),
        pytest.param("mv {} /root/elsewhere && ln -s /root/elsewhere {}", marks=pytest.mark.long),
        pytest.param("rm {} && mkfifo {}", marks=pytest.mark.long),
    ],
)
def test_a_copy_that_is_not_as_it_was_kept_is_not_used(hosting: Hosting, spoil: str) -> None:
    hosting.node.ssh(["rm", "-rf", CODE])
    hosting.run("purge", PRODUCTION).raise_if_failed()
    hosting.apply(PRODUCTION).raise_if_failed()
    for name in copies(hosting):
        hosting.node.ssh(spoil.replace("{}", f"{CODE}/{name}"))
    hosting.run("purge", PRODUCTION).raise_if_failed()
    assert hosting.apply(PRODUCTION).raise_if_failed().changed == 0
    again = copies_of_root(hosting)
    assert len(again) >= 2
    assert [name for name in again if not is_whole(hosting, name)] == []
    hosting.node.ssh(f"rm -rf {CODE} /root/elsewhere")


def copies_of_root(hosting: Hosting) -> list[str]:
    """Those that are root's alone, and no links."""
    found = hosting.node.ssh(["find", CODE, "-type", "f", "-user", "root", "-perm", "600", "-printf", "%f\\n"]).stdout
    return found.split()


@pytest.mark.long
@pytest.mark.lab
def test_where_nothing_can_be_kept_modules_run_all_the_same(hosting: Hosting) -> None:
    hosting.node.ssh(f"rm -rf {CODE} && touch {CODE}")
    try:
        hosting.run("purge", PRODUCTION).raise_if_failed()
        assert hosting.apply(PRODUCTION).raise_if_failed().changed == 0
    finally:
        hosting.node.ssh(["rm", CODE])
