"""The wheel, built once, and a clean environment that has it and its locked dependencies and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


@dataclass(frozen=True)
class Installed:
    """Trueup installed from the wheel, and an empty directory to run it from."""

    environment: Path
    workplace: Path

    @property
    def share(self) -> Path:
        return next(self.environment.glob("lib/python3.*/site-packages/reconciler/share"))

    def run(self, *argv: str | Path, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment: nothing of the checkout's is on its path or in its variables."""
        variables = {
            "PATH": f"{self.environment / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.workplace),
            "LANG": "C.UTF-8",
            "TRUEUP_HOME": str(self.workplace / "home"),
            **(settings or {}),
        }
        where = [str(self.environment / "bin" / argv[0]), *map(str, argv[1:])]
        return subprocess.run(
            where, check=False, cwd=self.workplace, env=variables, capture_output=True, text=True, timeout=120
        )


def build(kind: str, into: Path) -> Path:
    """Build from the checkout, without the network. ``kind``: ``wheel``, or ``sdist`` and the wheel made from that."""
    options = ["--wheel"] if kind == "wheel" else []
    argv = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(into), str(TOP)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(into.glob("*.whl"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def clean_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("installed") / "environment"
    _uv("venv", "--python", sys.executable, str(where))
    install = ("pip", "install", "--python", str(where / "bin" / "python"), "-c", str(TOP / "requirements.lock"))
    # What made the checkout's environment left its packages in uv's cache; only without them is the network needed.
    if _uv(*install, "--offline", str(wheel), check=False):
        _uv(*install, str(wheel))
    return where


@pytest.fixture
def installed(clean_environment: Path, tmp_path: Path) -> Installed:
    return Installed(clean_environment, tmp_path)


def _uv(*arguments: str, check: bool = True) -> int:
    without = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    argv = [sys.executable, "-m", "uv", *arguments]
    done = subprocess.run(argv, check=False, env=without, capture_output=True, text=True, timeout=300)
    assert not (check and done.returncode), done.stderr
    return done.returncode
