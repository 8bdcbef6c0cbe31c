"""What the tests of an upgrade begin with is the old version, and nothing of the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.upgrade.old_version import BASE, OldVersion

WHERE = "import reconciler, reconciler.paths, api; print(reconciler.__file__, api.__file__, reconciler.paths.share())"


def test_its_code_and_playbooks_are_its_own(tmp_path: Path) -> None:
    old = OldVersion.install(BASE, tmp_path)
    told = subprocess.run([old.program("python"), "-c", WHERE], capture_output=True, text=True, check=True, cwd="/")
    paths = [Path(path) for path in told.stdout.split()]
    assert [path.is_relative_to(old.environment) for path in paths] == [True] * 3
    assert paths[2] == old.share
    assert (old.share / "playbooks" / "library" / "trueup_environment.py").is_file(), "where they were then"
    head = old.program("ansible-playbook").read_text().partition("\n")[0]
    assert head == f"#!{old.program('python')}"


def test_a_repository_without_the_commit_fails_the_test_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="git fetch --unshallow"):
        OldVersion.install("0" * 40, tmp_path)
