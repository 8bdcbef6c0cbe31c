"""Real stores in temporary directories."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.core.intents import Edit
from reconciler.store.repository import Author, Evaluate, Repository, Snapshot

ADA = Author("Ada Lovelace", "ada@example.com")

SITE = b"""\
# yaml-language-server: $schema=../../schemas/site.json
apiVersion: trueup/v1
kind: Site
metadata:
  name: "Acme"   # as on the invoice
spec: {}
"""

ENVIRONMENT = b"""\
# Looked after by Ada.
apiVersion: trueup/v1
kind: Environment
metadata:
  name: 'Production'
spec:
  type: production
  node: web-1
  wordpress: {version: "7.1.1"}   # pinned until the shop plugin follows
  cache:
    # Off while we measure.
    fastcgi: true    # really

    redis: true
# the end
"""

PATH = "sites/acme/environments/production.yaml"


def run_git(path: Path, *arguments: str, check: bool = True, feed: bytes | None = None) -> str:
    done = subprocess.run(
        ["git", "-C", str(path), *arguments], capture_output=True, check=False, input=feed, timeout=60
    )
    if check and done.returncode:
        raise AssertionError(f"git {arguments}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="replace").strip()


def fsck(path: Path) -> None:
    """The repository is whole, and nothing that a writer needs for itself was left in it."""
    run_git(path, "fsck", "--strict", "--full")
    assert run_git(path, "for-each-ref", "--format=%(refname)", "refs/trueup") == ""


def switch(path: str, name: str, flag: object) -> Evaluate:
    def evaluate(_snapshot: Snapshot) -> Edit:
        return Edit(f"Switch {name} for {path}", assign={path: {("spec", "cache", name): flag}})

    return evaluate


def create(path: str, name: str) -> Evaluate:
    def evaluate(_snapshot: Snapshot) -> Edit:
        document = {"apiVersion": "trueup/v1", "kind": "Site", "metadata": {"name": name}, "spec": {}}
        return Edit(f"Create {path}", create={path: document})

    return evaluate


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Repository]]:
    made: list[Repository] = []

    def _make(documents: dict[str, bytes] | None = None, path: Path | None = None) -> Repository:
        initial = documents or {"sites/acme/site.yaml": SITE, PATH: ENVIRONMENT}
        made.append(Repository.init(path or tmp_path / "store.git", initial, ADA))
        return made[-1]

    yield _make
    for repository in made:
        repository.close()


@pytest.fixture
def store(make: Callable[..., Repository]) -> Repository:
    return make()


@pytest.fixture
def clone(store: Repository, tmp_path: Path) -> Path:
    """A person's clone of the store."""
    path = tmp_path / "clone"
    run_git(tmp_path, "clone", "-q", str(store.path), str(path))
    run_git(path, "config", "user.name", "Grace")
    run_git(path, "config", "user.email", "grace@example.com")
    return path


def push(clone: Path, files: dict[str, bytes | None], message: str = "By hand") -> str:
    """Commits files as a person would, and pushes; returns the commit."""
    for name, content in files.items():
        if content is None:
            (clone / name).unlink()
            continue
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(content)
    run_git(clone, "add", "-A")
    run_git(clone, "commit", "-q", "-m", message)
    run_git(clone, "push", "-q", "origin", "HEAD:main")
    return run_git(clone, "rev-parse", "HEAD")
