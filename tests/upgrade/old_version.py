"""An earlier commit of this repository, installed as a user has it: what it makes is what an upgrade finds.

Its own code, playbooks and command-line programs; third-party packages are those of the environment that the tests
run in, so that nothing is downloaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.controlplane import ControlPlane

BASE = "503e1c5a004674d47a6d234970d655e684c7fb87"
"""Upgrades from here are proven."""
TOP = Path(__file__).parents[2]


@dataclass(frozen=True)
class OldVersion:
    """``environment`` is a virtual environment that has the commit's wheel and sees the present packages."""

    commit: str
    environment: Path

    @classmethod
    def install(cls, commit: str, directory: Path) -> OldVersion:
        """Made from what the repository has of the commit, in ``directory``. Fails the test where it has nothing."""
        source, environment = directory / "source", directory / "environment"
        _unpack(commit, source)
        _uv("venv", "--offline", "--python", sys.executable, str(environment))
        old = cls(commit, environment)
        (old._packages / "present.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        options = ("--offline", "--no-cache", "--no-deps", "--no-build-isolation", "--compile-bytecode")
        _uv("pip", "install", *options, "--python", str(old.program("python")), str(source))
        for script in Path(sysconfig.get_path("scripts")).glob("ansible*"):
            old._adopt(script)
        return old

    @property
    def share(self) -> Path:
        """Its playbooks, inventory and ansible.cfg."""
        return self._packages / "reconciler" / "share"

    def program(self, name: str) -> Path:
        return self.environment / "bin" / name

    def control_plane(self, home: Path, **settings: str) -> ControlPlane:
        """One whose `start` is this version's `trueup serve` and whose `command` its `trueup`."""
        return ControlPlane(home, trueup=self.program("trueup"), **settings)

    def by_hand(self, home: Path, *arguments: str) -> str:
        """What its `ansible-playbook` prints, run as somebody does on the control plane's host."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRUEUP_", "ANSIBLE_"))}
        own = {"PATH": f"{self.environment / 'bin'}:{kept['PATH']}", "TRUEUP_HOME": str(home), "ANSIBLE_NOCOLOR": "1"}
        return _run([str(self.program("ansible-playbook")), "-i", "inventory", *arguments], self.share, {**kept, **own})

    @property
    def _packages(self) -> Path:
        return next(self.environment.glob("lib/python3.*/site-packages"))

    def _adopt(self, script: Path) -> None:
        """A script of the present environment that runs with this one's Python: it imports the old code, too."""
        _, _, body = script.read_text().partition("\n")
        copy = self.program(script.name)
        copy.write_text(f"#!{self.program('python')}\n{body}")
        copy.chmod(0o755)


def _unpack(commit: str, where: Path) -> None:
    """By `git archive`, which leaves nothing behind in the repository."""
    packed = subprocess.run(["git", "-C", str(TOP), "archive", commit], capture_output=True, check=False)
    if packed.returncode:
        said = packed.stderr.decode(errors="replace").strip()
        pytest.fail(
            f"Upgrades are proven from commit {commit[:12]}, which {TOP} does not have ({said}). Fetch the whole "
            "history: `git fetch --unshallow`.",
            pytrace=False,
        )
    where.mkdir()
    subprocess.run(["tar", "-x", "-C", str(where)], input=packed.stdout, check=True)


def _uv(*arguments: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    _run([sys.executable, "-m", "uv", "--quiet", *arguments], TOP, kept)


def _run(argv: list[str], where: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        argv,
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout
