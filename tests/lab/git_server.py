"""Somebody's Git server for tests: repositories served by `git daemon` on an address that the control plane reaches."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.ports import free_port

PATIENCE_S = 120.0
_IDENTITY = ("-c", "user.name=Grace Hopper", "-c", "user.email=grace@example.com")


@dataclass(frozen=True)
class GitServer:
    """Bare repositories below ``root``; each is made by its first commit."""

    root: Path
    address: str
    port: int

    def url(self, name: str) -> str:
        return f"git://{self.address}:{self.port}/{name}.git"

    def commit(
        self,
        name: str,
        files: Mapping[str, str],
        branch: str = "main",
        tag: str | None = None,
        submodules: Mapping[str, str] | None = None,
    ) -> str:
        """A commit with exactly these files on the branch; its id. ``submodules``: a commit of theirs by path."""
        bare, work = self.root / f"{name}.git", self.root / f".{name}"
        if not bare.exists():
            _git(self.root, "init", "-q", "--bare", "-b", "main", str(bare))
            _git(self.root, "clone", "-q", str(bare), str(work))
        _git(work, "checkout", "-q", "-B", branch)
        for path in work.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path_name, text in files.items():
            (work / path_name).parent.mkdir(parents=True, exist_ok=True)
            (work / path_name).write_text(text, encoding="utf-8")
        _git(work, "read-tree", "--empty")
        _git(work, "add", "-A")
        for path_name, commit in (submodules or {}).items():
            _git(work, "update-index", "--add", "--cacheinfo", f"160000,{commit},{path_name}")
        _git(work, *_IDENTITY, "commit", "-q", "--allow-empty", "-m", "Change")
        if tag:
            _git(work, *_IDENTITY, "tag", "-a", tag, "-m", tag)
        _git(work, "push", "-q", "--force", "origin", branch, "--tags")
        return _git(work, "rev-parse", "HEAD").strip()


@contextmanager
def git_daemon(root: Path, address: str) -> Iterator[GitServer]:
    """Serves everything below ``root``."""
    port = free_port()
    argv = ["git", "daemon", "--reuseaddr", "--export-all", f"--listen={address}", f"--port={port}"]
    process = subprocess.Popen([*argv, f"--base-path={root}", str(root)], stdin=subprocess.DEVNULL)
    try:
        _wait(address, port)
        yield GitServer(root, address, port)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _wait(address: str, port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _git(where: Path, *argv: str) -> str:
    done = subprocess.run(["git", "-C", str(where), *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
