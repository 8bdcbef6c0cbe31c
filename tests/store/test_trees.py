"""A clone or a directory says the same of its documents as the store will."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from reconciler.core.errors import NotFound, StoreError
from reconciler.store.objects import blob_id
from reconciler.store.repository import Repository
from reconciler.store.snapshot import Snapshot
from reconciler.store.trees import Trees
from tests.store.conftest import ENVIRONMENT, PATH, SITE, push, run_git

ODD = {
    "nodes/web-1.yml": b"kind: Node\n",
    "sites/acme/notes.txt": b"hello\n",
    "sites/acme/broken.yaml": b"a: [\n",
    "sites/acme/latin.yaml": b"name: \xe9\n",
    "deep/er/other.yaml": b"any: thing\n",
    "README.yml": b"no: document\n",
    ".hidden/x.yaml": b"a: 1\n",
    "sites/.y.yaml": b"a: 1\n",
}


def told(snapshot: Snapshot) -> dict[str, str]:
    return {
        path: str(getattr(one, "message", None) or getattr(one, "data", "")) for path, one in snapshot.documents.items()
    }


def test_read_alike_wherever_it_lies(store: Repository, clone: Path, tmp_path: Path) -> None:
    (clone / "sites" / "link.yaml").symlink_to("acme/site.yaml")
    (clone / "sites" / "pipe").symlink_to("/nowhere")
    push(clone, dict(ODD))
    plain = tmp_path / "plain"
    subprocess.run(["git", "clone", "-q", str(clone), str(plain)], check=True)
    subprocess.run(["rm", "-rf", str(plain / ".git")], check=True)
    expected = told(store.read())
    assert "its name ends in .yml" in expected["nodes/web-1.yml"]
    assert "symbolic link" in expected["sites/pipe"]
    with Trees(clone) as cloned, Trees(plain) as directory:
        assert cloned.is_clone
        assert not directory.is_clone
        assert told(cloned.read(cloned.commit("origin/main"))) == expected
        assert told(cloned.read(cloned.of_files())) == expected
        assert told(cloned.read(cloned.of_index())) == expected
        assert told(directory.read(directory.of_files())) == expected


def test_a_part_of_a_clone_is_read_as_if_it_were_the_top(tmp_path: Path, clone: Path) -> None:
    whole = tmp_path / "whole"
    run_git(tmp_path, "init", "-q", "-b", "main", str(whole))
    push_less(
        whole, {f"fleet/{PATH}": ENVIRONMENT, "fleet/sites/acme/site.yaml": SITE, "nodes/no.yaml": b"not: ours\n"}
    )
    with Trees(whole / "fleet") as trees:
        assert sorted(trees.read(trees.commit("HEAD")).documents) == [PATH, "sites/acme/site.yaml"]
        (whole / "fleet" / PATH).unlink()
        assert sorted(trees.read(trees.of_files()).documents) == ["sites/acme/site.yaml"]
    (whole / "empty").mkdir()
    with Trees(whole / "empty") as trees:
        assert trees.read(trees.commit("HEAD")).documents == {}


def push_less(clone: Path, files: dict[str, bytes]) -> None:
    """Commits without a remote."""
    for name, content in files.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(content)
    run_git(clone, "add", "-A")
    run_git(clone, "-c", "user.name=G", "-c", "user.email=g@example.com", "commit", "-q", "-m", "All")


def test_what_lies_there_what_is_staged_and_what_is_committed(clone: Path) -> None:
    (clone / PATH).write_bytes(ENVIRONMENT + b"# staged\n")
    run_git(clone, "add", PATH)
    (clone / PATH).write_bytes(ENVIRONMENT + b"# not staged: [\n\t{\n")
    (clone / ".gitignore").write_text("sites/ignored\n")
    (clone / "sites" / "ignored").mkdir()
    (clone / "sites" / "ignored" / "site.yaml").write_bytes(SITE)
    before = run_git(clone, "status", "--porcelain"), run_git(clone, "count-objects", "-v")
    with Trees(clone) as trees:
        found = {
            name: trees.read(tree).entries
            for name, tree in (("head", trees.commit("HEAD")), ("index", trees.of_index()), ("files", trees.of_files()))
        }
    assert (run_git(clone, "status", "--porcelain"), run_git(clone, "count-objects", "-v")) == before
    assert len({entries[PATH] for entries in found.values()}) == 3
    assert found["files"].keys() == found["head"].keys()


def test_an_edit_in_the_second_of_the_last_git_command_is_seen(clone: Path) -> None:
    """Of the same length, too: Git compares contents where the index is no younger than the file."""
    moment = 1_700_000_000
    run_git(clone, "config", "core.trustctime", "false")
    document, index = clone / PATH, clone / ".git" / "index"
    os.utime(document, (moment, moment))
    run_git(clone, "update-index", "--refresh")
    before = document.read_bytes()
    with document.open("r+b") as file:
        file.write(before.replace(b"production", b"Production"))
    for one in (document, index):
        os.utime(one, (moment, moment))
    with Trees(clone) as trees:
        assert trees.read(trees.of_files()).entries[PATH] == blob_id(document.read_bytes()) != blob_id(before)


def test_merged_as_the_forge_will(clone: Path) -> None:
    push(clone, {"sites/acme/notes.yaml": b"base: 1\n"})
    run_git(clone, "checkout", "-q", "-b", "change", "HEAD~1")
    push_less(clone, {PATH: ENVIRONMENT + b"# mine\n"})
    with Trees(clone) as trees:
        base, head = trees.commit("origin/main"), trees.commit("change")
        assert trees.merged(trees.commit("HEAD~1"), head) == head
        merged = trees.read(trees.merged(base, head)).entries
        assert merged["sites/acme/notes.yaml"] == trees.read(base).entries["sites/acme/notes.yaml"]
        assert merged[PATH] == trees.read(head).entries[PATH]
        (clone / PATH).write_bytes(ENVIRONMENT + b"# still mine\n")
        lying = trees.as_commit(trees.of_files(), head)
        assert trees.read(trees.merged(base, lying)).entries[PATH] not in {merged[PATH]}
    assert run_git(clone, "rev-parse", "change") == head


def test_a_conflict_is_told(clone: Path) -> None:
    push(clone, {PATH: ENVIRONMENT.replace(b"7.1.1", b"7.1.2")})
    run_git(clone, "checkout", "-q", "-b", "change", "HEAD~1")
    push_less(clone, {PATH: ENVIRONMENT.replace(b"7.1.1", b"7.2")})
    with Trees(clone) as trees, pytest.raises(StoreError, match=f"conflict in {PATH}. Merge the base"):
        trees.merged(trees.commit("origin/main"), trees.commit("HEAD"))


def test_a_history_that_was_not_fetched_is_told(clone: Path, tmp_path: Path) -> None:
    push(clone, {"sites/acme/notes.yaml": b"base: 1\n"})
    shallow = tmp_path / "shallow"
    run_git(tmp_path, "clone", "-q", "--depth", "1", f"file://{clone}", str(shallow))
    with Trees(shallow) as trees, pytest.raises(NotFound, match=r"HEAD~1. names no commit.*fetch-depth: 0"):
        trees.commit("HEAD~1")


def test_what_is_no_revision_and_no_directory(clone: Path, tmp_path: Path) -> None:
    with Trees(clone) as trees:
        for wrong in ("--help", "no-such", "", "HEAD:sites", "a b"):
            with pytest.raises(NotFound):
                trees.commit(wrong)
    with pytest.raises(NotFound, match="There is no directory"):
        Trees(tmp_path / "missing")
    (tmp_path / "plain").mkdir()
    with Trees(tmp_path / "plain") as trees, pytest.raises(StoreError, match="no clone"):
        trees.of_index()


def test_nothing_is_left_behind(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with Trees(clone) as trees:
        trees.read(trees.of_files())
        assert list(scratch.iterdir())
    assert list(scratch.iterdir()) == []
