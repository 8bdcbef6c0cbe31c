"""A larger repository that has documents in one folder, a home that follows it, and somebody who pushes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from reconciler.home import create
from reconciler.settings import Settings
from reconciler.store.standing import State
from tests.controlplane import AUTHOR, Clone, closed_port, node_document, run_git, site_documents

from .conftest import ENVIRONMENT, Followed, followed_at

FOLDER = "hosting/wordpress"
HERE = f"{FOLDER}/{ENVIRONMENT}"
DOCUMENTS = {"nodes/web-1.yaml": node_document(port=closed_port()), **site_documents("shop")}
OTHERS: Mapping[str, str | bytes] = {
    "README.md": "All that we have\n",
    "app/main.c": "int main(void) { return 0; }\r\n",
    "app/logo.bin": bytes(range(256)),
    "hosting/wordpress.yaml": "not: ours\n",
    "hosting/wordpress-old/nodes/web-9.yaml": node_document(),
    "nodes/router.yaml": "a: router\n",
    "platform.yaml": "somebody: else's\n",
    "sites/list.yml": "- a\n",
}
"""What else such a repository has; some of it would be documents, were it in the folder."""


def below(files: Mapping[str, str], folder: str = FOLDER) -> dict[str, str]:
    return {f"{folder}/{path}": text for path, text in files.items()}


def outside(repository: Path, revision: str = "main") -> list[str]:
    """Mode, id and name of all that isn't in the folder."""
    lines = run_git(repository, "ls-tree", "-r", revision).splitlines()
    return [line for line in lines if not line.partition("\t")[2].startswith(f"{FOLDER}/")]


def push_what_lies_there(person: Clone) -> None:
    run_git(person.path, "add", "-A")
    run_git(person.path, "commit", "-q", "-m", "Move")
    run_git(person.path, "push", "-q", "origin", "HEAD:main")


@pytest.fixture
def forge(tmp_path: Path) -> Path:
    """A repository of somebody who has other things in it, an executable and a symbolic link among them."""
    path, work = tmp_path / "forge.git", tmp_path / "beginning"
    run_git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(path))
    run_git(tmp_path, "clone", "-q", str(path), str(work))
    for name, content in OTHERS.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (work / "app/run").write_text("#!/bin/sh\n")
    (work / "app/run").chmod(0o755)
    (work / "app/link").symlink_to("../nowhere")
    run_git(work, "add", "-A")
    who = ("-c", f"user.name={AUTHOR.name}", "-c", f"user.email={AUTHOR.email}")
    run_git(work, *who, "commit", "-q", "-m", "Begin with something else")
    run_git(work, "push", "-q", "origin", "HEAD:main")
    return path


@pytest.fixture
def person(forge: Path, tmp_path: Path) -> Clone:
    return Clone(forge, tmp_path / "clone")


Follow = Callable[..., Followed]


@pytest.fixture
def follow(forge: Path, tmp_path: Path) -> Iterator[Follow]:
    """Makes a home as `trueup init` does, and follows."""
    made: list[Followed] = []

    def _follow(folder: str = FOLDER) -> Followed:
        home = tmp_path / f"home{len(made)}"
        create(Settings(home=home, upstream=f"file://{forge}", upstream_path=folder), AUTHOR)
        made.append(followed_at(home, forge, upstream_path=folder))
        return made[-1]

    yield _follow
    for one in made:
        one.home.close()


@pytest.fixture
def followed(follow: Follow, person: Clone) -> Followed:
    """In step with the folder, in which somebody has put documents."""
    person.push(below(DOCUMENTS), "Begin with the hosting")
    one = follow()
    assert one.following.look().state is State.IN_STEP
    return one
