"""What goes wrong on real machines: races with pushes, a writer that is killed, a full disk."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.core.entries import Document
from reconciler.core.errors import StoreError
from reconciler.store.repository import Repository
from tests.proof import count

from .conftest import ADA, ENVIRONMENT, PATH, fsck, run_git, switch

PUSHES = count(short=12, full=60)
PUSHER = """
import subprocess, sys
clone, pushes = sys.argv[1], int(sys.argv[2])
def git(*arguments):
    return subprocess.run(["git", "-C", clone, *arguments], capture_output=True)
done = 0
while done < pushes:
    git("fetch", "-q", "origin")
    git("reset", "-q", "--hard", "origin/main")
    with open(f"{clone}/pushed.txt", "a") as pushed:
        pushed.write(f"{done}\\n")
    git("add", "pushed.txt")
    git("commit", "-q", "-m", f"Push {done}")
    done += git("push", "-q", "origin", "HEAD:main").returncode == 0
"""

WRITER = """
import sys, threading
from pathlib import Path
from reconciler.core.intents import Edit
from reconciler.store.repository import Author, Repository
store, path, start = Repository(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
def write(thread):
    for number in range(1000):
        job = f"{start}-{thread}-{number}"
        edit = Edit(f"Set {job}", assign={path: {("spec", "cache", f"t{thread}"): job}})
        commit = store.commit(lambda _: edit, Author("W", "w@example.com"), job=job)
        sys.stdout.write(f"{job} {commit.revision}\\n")
        sys.stdout.flush()
for thread in range(4):
    threading.Thread(target=write, args=(thread,)).start()
"""


def test_pushes_and_commits_race_and_nothing_is_lost(store: Repository, clone: Path) -> None:
    pusher = subprocess.Popen([sys.executable, "-c", PUSHER, str(clone), str(PUSHES)])
    finished = threading.Event()

    def write(thread: int) -> list[str]:
        made = []
        while len(made) < 25 or (not finished.is_set() and len(made) < 150):
            number = len(made)
            made.append(store.commit(switch(PATH, f"t{thread}", number), ADA, job=f"{thread}-{number}").revision)
        return made

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, thread) for thread in range(4)]
        # A person's fetch, edit, commit and push is slow: it may lose to the loop as long as that writes.
        time.sleep(count(short=1, full=8))
        finished.set()
        made = [future.result(120) for future in writing]
    assert pusher.wait(120) == 0
    log = run_git(store.path, "log", "--format=%H", "main").split()
    assert {revision for revisions in made for revision in revisions} <= set(log)
    assert len(log) == 1 + PUSHES + sum(map(len, made))
    assert run_git(store.path, "rev-list", "--merges", "main") == ""
    assert run_git(store.path, "show", "main:pushed.txt").split() == [str(number) for number in range(PUSHES)]
    document = store.read().documents[PATH]
    assert isinstance(document, Document)
    cache = document.data["spec"]["cache"]  # type: ignore[index,call-overload]
    assert [cache[f"t{thread}"] for thread in range(4)] == [len(revisions) - 1 for revisions in made]
    fsck(store.path)


def test_two_processes_write_at_once(store: Repository) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.path), PATH, name],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        for name in ("a", "b")
    ]
    first = [process.stdout.readline().decode() for process in processes if process.stdout]
    time.sleep(1)
    for process in processes:
        # With its Git processes: one that lived on would write its private ref after the next commit.
        os.killpg(process.pid, signal.SIGKILL)
    rest = [line for process in processes for line in process.communicate()[0].decode().splitlines()]
    acknowledged = [line.split() for line in first + rest]
    assert {line[0][0] for line in acknowledged} == {"a", "b"}
    assert store.jobs_in_history([job for job, _ in acknowledged]) == dict(acknowledged)
    # The killed one's private ref goes with the next commit.
    store.commit(switch(PATH, "redis", False), ADA)
    fsck(store.path)


def test_a_writer_killed_anywhere_loses_no_acknowledged_commit(store: Repository) -> None:
    dice = random.Random(7)
    acknowledged: dict[str, str] = {}
    rounds = count(short=2, full=25)
    for number in range(rounds):
        argv = [sys.executable, "-c", WRITER, str(store.path), PATH, f"round{number}"]
        # Its own process group: a power cut takes the Git processes with it.
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout
        first = process.stdout.readline()
        time.sleep(dice.uniform(0, 0.12))
        os.killpg(process.pid, signal.SIGKILL)
        lines = (first + process.communicate()[0]).decode().splitlines(keepends=True)
        acknowledged |= dict(line.split() for line in lines if line.endswith("\n"))  # type: ignore[misc]
        run_git(store.path, "fsck", "--strict", "--full")
        assert run_git(store.path, "show", f"main:{PATH}").startswith("# Looked after by Ada.")
    assert len(acknowledged) >= rounds
    assert store.jobs_in_history(acknowledged) == acknowledged
    store.commit(switch(PATH, "redis", False), ADA)
    fsck(store.path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def files_of(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 6])
def test_a_full_disk_is_an_error_and_nothing_else(small_disk: Path, room: int) -> None:
    with Repository.init(small_disk / "store.git", {PATH: ENVIRONMENT}, ADA) as store:
        first = store.commit(switch(PATH, "redis", False), ADA).revision
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(os.urandom(4096))
        # ``room`` pages are free: the import fails at another place each time, or only the ref's update does.
        os.truncate(ballast, ballast.stat().st_size // 4096 * 4096 - room * 4096)
        before = files_of(store.path)
        failure = None
        for number in range(10):
            try:
                first = store.commit(switch(PATH, "redis", number), ADA).revision
                before = files_of(store.path)
            except StoreError as error:
                failure = str(error)
                break
        assert failure == "The store could not be written: the disk is full. Free some space. Nothing was changed."
        left = {name for name in files_of(store.path) - before if not name.endswith((".pack", ".idx", ".rev"))}
        assert left == set()
        assert store.head() == first
        ballast.unlink()
        after = store.commit(switch(PATH, "redis", "again"), ADA).revision
        assert store.head() == after
        fsck(store.path)


def test_a_store_that_cannot_be_made_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(StoreError):
        Repository.init(small_disk / "store.git", {"big.bin": os.urandom(4 << 20)}, ADA)
    assert list(small_disk.iterdir()) == []
