"""A store below a folder of its repository reads, and tells of the past, what one at the top does."""

from __future__ import annotations

import random
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.store import folders
from reconciler.store.objects import Objects
from reconciler.store.repository import Author, Repository
from tests.controlplane import AUTHOR, Clone, run_git, site_documents
from tests.proof import count

FOLDER = "hosting/wordpress"


def test_history_below_a_folder_is_that_at_the_top(tmp_path: Path) -> None:
    """A history with merges, once as it is and once as if it had all been made below the folder."""
    dice, top, deep = random.Random(3), tmp_path / "top.git", tmp_path / "deep.git"
    start = {"platform.yaml": b"a: 0\n", "nodes/a.yaml": b"a: 0\n"}
    for path, folder in ((top, ""), (deep, FOLDER)):
        Repository.init(path, start, Author("T", "t@example.com"), folder).close()
    work = Clone(top, tmp_path / "work").path
    run_git(work, "checkout", "-q", "-B", "main", "origin/main")
    for number in range(count(short=30, full=60)):
        if number % 6 == 3:
            run_git(work, "checkout", "-q", "-b", f"side{number}", f"HEAD~{dice.randint(1, 3)}")
        name = work / f"nodes/{dice.choice('abcdef')}.yaml"
        if name.exists() and dice.random() < 0.2:
            name.unlink()
        else:
            name.write_text(f"a: {number}\n")
        (work / "sites").mkdir(exist_ok=True)
        (work / f"sites/{number}.yaml").write_text(f"a: {number}\n")
        run_git(work, "add", "-A")
        run_git(work, "commit", "-q", "-m", f"Change {number}")
        if number % 6 == 5:
            run_git(work, "checkout", "-q", "main")
            how = ["-s", "ours"] if dice.random() < 0.3 else ["-X", dice.choice(["ours", "theirs"])]
            subprocess.run(["git", "-C", work, "merge", "-q", "--no-edit", "--no-ff", *how, "@{-1}"], check=False)
            run_git(work, "add", "-A")
            (work / "nodes/decided.yaml").write_text(f"a: {number}\n")
            run_git(work, "add", "-A")
            run_git(work, "commit", "-q", "--allow-empty", "-m", "Decide")
    run_git(work, "push", "-q", "origin", "main")
    assert int(run_git(top, "rev-list", "--count", "--merges", "main")) > count(short=2, full=5)
    _below(top, deep)
    with closing(Repository(top)) as one, closing(Repository(deep)) as other:
        flat, nested = one.history(), other.history()
        told = [
            {path: (found.commits, found.created_at, found.updated_at) for path, found in history.items()}
            for history in (flat, nested)
        ]
        assert told[0] == told[1]
        assert len(told[0]) > count(short=20, full=40)
        assert one.read().entries == other.read().entries
        for path in one.read().entries:
            assert [change.subject for change, _ in one.changes(path, 20)] == [
                change.subject for change, _ in other.changes(path, 20)
            ]


def _below(top: Path, deep: Path) -> None:
    """Gives ``deep`` the history of ``top``, each path below the folder."""
    feed = subprocess.run(["git", "-C", top, "fast-export", "--no-data", "main"], capture_output=True, check=True)
    lines = []
    for line in feed.stdout.split(b"\n"):
        if line[:2] in {b"M ", b"D "} and (words := line.split(b" ")):
            words[-1] = f"{FOLDER}/".encode() + words[-1]
            line = b" ".join(words)  # noqa: PLW2901 (the line, further in)
        lines.append(line)
    run_git(deep, "config", "core.alternateRefsCommand", "true")
    (deep / "objects/info").mkdir(exist_ok=True)
    (deep / "objects/info/alternates").write_text(f"{top / 'objects'}\n")
    subprocess.run(
        ["git", "-C", deep, "fast-import", "--quiet", "--force"],
        input=b"\n".join(lines),
        capture_output=True,
        check=True,
    )


def test_reading_below_a_folder_asks_git_as_often_as_at_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_documents("s")["sites/s/site.yaml"].encode()
    documents = {f"sites/s{number}/site.yaml": site for number in range(300)}
    commands: dict[str, int] = {}
    for name, folder in (("top", ""), ("deep", FOLDER)):
        Repository.init(tmp_path / name, documents, AUTHOR, folder).close()
        with closing(Repository(tmp_path / name)) as repository:
            traces = tmp_path / f"{name}-traces"
            traces.mkdir()
            monkeypatch.setenv("GIT_TRACE2_EVENT", str(traces))
            assert set(repository.read().documents) == set(documents)
            monkeypatch.delenv("GIT_TRACE2_EVENT")
        commands[name] = len(list(traces.iterdir()))
    assert 0 < commands["deep"] == commands["top"]


def test_which_commits_decide_over_the_folder(tmp_path: Path) -> None:
    """``old`` and ``new`` are what the folder has; beside it each commit has a file of its own."""
    store = tmp_path / "store.git"
    Repository.init(store, {"a.yaml": b"old\n"}, AUTHOR, FOLDER).close()

    def tree(folder: str | None, beside: str) -> str:
        blobs = {text: _asked(store, "hash-object", "-w", "--stdin", feed=text) for text in (folder or "", beside)}
        here = _asked(store, "mktree", feed=f"100644 blob {blobs[folder or '']}\ta.yaml\n")
        for name in reversed(FOLDER.split("/")):
            here = _asked(store, "mktree", feed=f"040000 tree {here}\t{name}\n")
        listed = _asked(store, "ls-tree", here) if folder else ""
        return _asked(store, "mktree", feed=f"100644 blob {blobs[beside]}\tapp.c\n{listed}\n".replace("\n\n", "\n"))

    def commit(folder: str | None, beside: str, *parents: str) -> str:
        before = [word for parent in parents for word in ("-p", parent)]
        who = ("-c", "user.name=T", "-c", "user.email=t@example.com")
        return _asked(store, *who, "commit-tree", tree(folder, beside), "-m", beside, *before)

    root = commit("old", "root")
    beside = commit("old", "beside", root)
    ours = commit("new", "ours", root)
    rows = {
        "a first commit without the folder": commit(None, "bare"),
        "a first commit with it": root,
        "beside it": beside,
        "in it": ours,
        "out of it": commit(None, "gone", ours),
        "a merge that brings both together": commit("new", "merge", ours, beside),
        "the same the other way round": commit("new", "merge", beside, ours),
        "a merge that undoes one side": commit("old", "merge", ours, beside),
        "the same the other way about": commit("old", "merge", beside, ours),
        "a merge that has neither": commit("other", "merge", beside, ours),
        "a merge of three": commit("new", "merge", beside, ours, root),
        "a merge of what has nothing in common": commit("new", "merge", ours, commit("old", "stranger")),
    }
    crossed = [commit("new", "cross", ours, beside), commit("new", "cross back", beside, ours)]
    back = commit("old", "back", crossed[1])
    rows["a merge of two that parted twice"] = commit("old", "merge", crossed[0], back)
    with closing(Objects(store)) as objects:
        listed = {
            what: _asked(store, "rev-list", "--parents", "--max-count=1", one).split() for what, one in rows.items()
        }
        found = folders.deciding(objects, list(listed.values()))
    assert {what for what, one in rows.items() if one in found} == {
        "a first commit with it",
        "in it",
        "out of it",
        "a merge that undoes one side",
        "the same the other way about",
        "a merge that has neither",
        "a merge of three",
        "a merge of what has nothing in common",
        "a merge of two that parted twice",
    }


def _asked(store: Path, *arguments: str, feed: str = "") -> str:
    done = subprocess.run(["git", "-C", store, *arguments], input=feed, capture_output=True, check=True, text=True)
    return done.stdout.strip()
