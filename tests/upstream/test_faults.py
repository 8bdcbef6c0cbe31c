"""Races with somebody who pushes, processes that are killed anywhere, a forge that is away."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from reconciler.core.errors import UpstreamUnreachable
from reconciler.core.jobs import JobStatus
from reconciler.store.remote import Link, Remote
from reconciler.store.standing import State
from tests.controlplane import Clone, until
from tests.proof import count, sampled

from .conftest import ADA, ENVIRONMENT, Followed, fsck

ROUNDS = count(short=12, full=40)

PUSHER = """
import pathlib, random, subprocess, sys, time
clone, path, pushes, pauses = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
def git(*arguments):
    return subprocess.run(["git", "-C", clone, *arguments], capture_output=True, text=True)
done = 0
while done < pushes:
    began = time.monotonic()
    git("fetch", "-q", "origin")
    git("reset", "-q", "--hard", "origin/main")
    document = clone / path
    lines = [line for line in document.read_text().splitlines() if not line.startswith("# push ")]
    document.write_text("\\n".join([f"# push {done}", *lines, ""]))
    with open(clone / "pushed.txt", "a") as pushed:
        pushed.write(f"{done}\\n")
    git("add", "-A")
    git("commit", "-q", "-m", f"Push {done}")
    if git("push", "-q", "origin", "HEAD:main").returncode == 0:
        print(git("rev-parse", "HEAD").stdout.strip(), flush=True)
        done += 1
        # A slower machine makes the other side slower, too.
        time.sleep(random.uniform(0, pauses * (time.monotonic() - began)))
"""


@pytest.mark.parametrize(
    "pauses",
    [pytest.param(0.0, id="without a pause"), pytest.param(10.0, id="with pauses", marks=pytest.mark.long)],
)
def test_somebody_pushes_while_the_api_commits(followed: Followed, person: Clone, pauses: float) -> None:
    """``pauses``: how long the other one rests at most after a push, as a multiple of how long that took."""
    for setting in ("receive.denyNonFastForwards", "receive.denyDeletes"):
        followed.remote("config", setting, "true")
    argv = [sys.executable, "-c", PUSHER, str(person.path), ENVIRONMENT, str(ROUNDS), str(pauses)]
    pusher = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    over = threading.Event()
    dice = random.Random(5)

    def follow() -> None:
        while not over.is_set():
            assert followed.following.look().is_well

    first: dict[UUID, str | None] = {}

    def commit(flag: str) -> list[UUID]:
        made: list[UUID] = []
        while len(made) < ROUNDS or pusher.poll() is None:
            made.append(followed.set_cache(**{flag: len(made) % 2 == 0}))
            first[made[-1]] = followed.job(made[-1]).revision
            time.sleep(dice.uniform(0, 0.8 if pauses else 0.2))
        return made

    with ThreadPoolExecutor(3) as pool:
        following = pool.submit(follow)
        committing = [pool.submit(commit, flag) for flag in ("fastcgi", "redis")]
        try:
            jobs = [future.result(60 + 30 * ROUNDS) for future in committing]
        finally:
            over.set()
        following.result(120)
    acknowledged = pusher.communicate(timeout=120)[0].split()
    assert followed.following.look().state is State.IN_STEP
    followed.both()

    # Nothing that was acknowledged is lost, on either side, and nothing is there twice.
    log = followed.remote("log", "--format=%H", "main").split()
    assert len(acknowledged) == ROUNDS
    assert set(acknowledged) <= set(log)
    every = [job for made in jobs for job in made]
    trailers = followed.remote("log", "--format=%(trailers:key=Trueup-Job,valueonly,separator=)", "main").split()
    assert sorted(trailers) == sorted(map(str, every))
    assert len(log) == 1 + ROUNDS + len(every)
    assert followed.remote("rev-list", "--merges", "main") == ""
    assert followed.following.upstream.dropped() == []

    document_is_joined(followed, jobs)

    # Who pushes without a pause may keep us waiting; else both come through while the other one goes on.
    who = followed.remote("log", "--format=%cn", "main").split("\n")
    turns = sum(one != other for one, other in itertools.pairwise(who))
    assert turns > ROUNDS // 4 or not pauses

    # Each job knows the commit that declares it now.
    known = followed.home.state.repository.jobs_in_history(map(str, every))
    assert {str(job): followed.job(job).revision for job in every} == known
    assert {followed.job(job).status for job in every} == {JobStatus.QUEUED}
    anew = sum(known[str(job)] != revision for job, revision in first.items())
    assert anew, "there was no race"
    fsck(followed.store)
    fsck(followed.forge)
    print(f"{ROUNDS} pushes, {len(every)} commits of the API, {anew} of them made anew, {turns} turns")


def document_is_joined(followed: Followed, jobs: list[list[UUID]]) -> None:
    """Nothing is overwritten: each side's last word stands, and each commit changed its own line only."""
    assert followed.remote("show", "main:pushed.txt").split() == [str(number) for number in range(ROUNDS)]
    document = followed.document()
    assert f"# push {ROUNDS - 1}\n" in document
    for flag, made in zip(("fastcgi", "redis"), jobs, strict=True):
        assert f"{flag}: {str(len(made) % 2 == 1).lower()}" in document
    changes = followed.remote("log", "-p", "-U0", "--format=%x00%cn", "main^", "--", ENVIRONMENT)
    by_whom: dict[str, set[str]] = {}
    for text in changes.split("\0")[1:-1]:  # the last is the one that made the document
        who, _, patch = text.partition("\n")
        words = re.findall(r"^[-+](?![-+])\s*(# push|[^:\n]+)", patch, re.MULTILINE)
        assert len(set(words)) == 1, text
        by_whom.setdefault(who, set()).update(words)
    assert by_whom == {"Trueup": {"fastcgi", "redis"}, "Grace Hopper": {"# push"}}


FOLLOWER = """
import os, signal, sys
from pathlib import Path
from reconciler.home import Home, clock
from reconciler.loop.following import Following
from reconciler.operations.redeclaring import Redeclaring
from reconciler.settings import Settings
from reconciler.store.upstream import Upstream
home, forge, point = sys.argv[1:]
def die(*_arguments, **_named):
    os.kill(os.getpid(), signal.SIGKILL)
kinds = {"accept": Upstream, "settle": Redeclaring, "pushed": Upstream}
if point in kinds:
    setattr(kinds[point], point, die)
settings = Settings(home=Path(home), upstream=f"file://{forge}")
with Home.open(settings) as opened:
    while True:
        Following(settings, opened.state, clock).look()
        if point != "loop":
            break
"""


def follower(followed: Followed, point: str) -> subprocess.Popen[bytes]:
    """Another process that follows, and that is killed at ``point``."""
    argv = [sys.executable, "-c", FOLLOWER, str(followed.home.settings.home), str(followed.forge), point]
    return subprocess.Popen(argv, start_new_session=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("point", sampled(["pushed", "accept", "settle"]))
def test_killed_in_the_middle(followed: Followed, person: Clone, point: str) -> None:
    start = followed.both()
    kept = followed.set_cache(redis=False)
    lost = followed.home.operations.create_site("Mine", "blog", ADA)
    commits = {job: followed.job(job).revision for job in (kept, lost)}
    pushed = person.push(
        {
            "sites/blog/site.yaml": "apiVersion: trueup/v1\nkind: Site\nmetadata: {name: Theirs}\n",
            "pushed.txt": "pushed\n",
        }
    )
    assert follower(followed, point).wait(300) == -signal.SIGKILL
    assert followed.local("rev-parse", "refs/trueup/upstream") == pushed
    if point == "accept":
        # Fetched and not accepted: nothing has changed.
        assert followed.local("rev-parse", "main") == commits[lost]
        assert followed.local("rev-parse", "refs/trueup/accepted") == start
    if point == "settle":
        # Accepted, and the jobs know nothing of it yet.
        assert followed.local("rev-parse", "main~1") == pushed
        assert {job: followed.job(job).revision for job in commits} == commits
    if point == "pushed":
        assert followed.remote("rev-parse", "main") == followed.local("rev-parse", "main")
        assert followed.local("rev-parse", "refs/trueup/accepted") == pushed
    assert followed.following.look().state is State.IN_STEP
    assert followed.job(kept).revision == followed.both()
    assert followed.job(kept).status is JobStatus.QUEUED
    assert (followed.job(lost).status, followed.job(lost).error_code) == (JobStatus.FAILED, "UPSTREAM_CONFLICT")
    assert [dropped.job for dropped in followed.following.upstream.dropped()] == [str(lost)]
    fsck(followed.store)


def test_killed_anywhere_again_and_again(followed: Followed, person: Clone) -> None:
    dice = random.Random(11)
    jobs: list[UUID] = []
    pushes: list[str] = []
    for number in range(count(short=3, full=12)):
        process = follower(followed, "loop")
        ends = time.monotonic() + 1.2 + dice.uniform(0, 0.6)
        while time.monotonic() < ends:
            jobs.append(followed.set_cache(redis=len(jobs) % 2 == 0))
            # Refused where the follower was quicker: then nothing was pushed.
            with contextlib.suppress(AssertionError):
                pushes.append(person.push({f"{number}-{len(jobs)}.txt": "x\n"}))
        # Its own session: as a power cut would, this takes its Git processes with it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        fsck(followed.store)
    until(lambda: followed.following.look().state is State.IN_STEP, "the locks of the killed to be removed")
    followed.both()
    log = followed.remote("log", "--format=%H", "main").split()
    assert pushes
    assert set(pushes) <= set(log)
    trailers = followed.remote("log", "--format=%(trailers:key=Trueup-Job,valueonly,separator=)", "main").split()
    assert sorted(trailers) == sorted(map(str, jobs))
    known = followed.home.state.repository.jobs_in_history(map(str, jobs))
    assert {str(job): followed.job(job).revision for job in jobs} == known
    assert f"redis: {str(len(jobs) % 2 == 1).lower()}" in followed.document()


def test_a_forge_that_is_away_and_comes_back(followed: Followed, person: Clone) -> None:
    away = followed.forge.with_name("away.git")
    pushed = person.push({"pushed.txt": "pushed\n"})
    followed.forge.rename(away)
    first = followed.following.look()
    assert first.state is State.UNREACHABLE
    jobs = [followed.set_cache(redis=number % 2 == 1) for number in range(3)]
    assert all(followed.job(job).revision for job in jobs)
    again = followed.following.look()
    assert (again.state, again.since) == (State.UNREACHABLE, first.since)
    assert again.checked_at > first.checked_at
    assert followed.following.upstream.waiting() == 3
    assert not followed.following.is_behind()
    away.rename(followed.forge)
    found = followed.following.look()
    assert found.state is State.IN_STEP
    assert found.since > first.since
    assert followed.job(jobs[-1]).revision == followed.both()
    assert followed.remote("rev-parse", "main~3") == pushed


@pytest.mark.long
def test_who_waits_for_a_forge_can_be_stopped(
    followed: Followed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    silent = tmp_path / "ssh"
    # As ssh does with a shared connection, it leaves something behind that keeps the pipes.
    silent.write_text(f"#!/bin/sh\nsetsid sleep 600 &\necho $$ $! >{pid}\nexec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(silent))
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    stopping = threading.Event()
    link = Link(followed.store, Remote.parse("git@git.example.com:store.git", "main"), stopping)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(link.head)
        until(lambda: pid.exists() and pid.read_text().endswith("\n"), "ssh to be started")
        stopping.set()
        with pytest.raises(UpstreamUnreachable, match="stopping"):
            asking.result(30)
    child, behind = map(int, pid.read_text().split())
    os.kill(behind, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child), "ssh to be ended")


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_what_a_forge_cannot_send_whole_is_not_taken_over(followed: Followed, person: Clone) -> None:
    start = followed.both()
    person.push({"README.txt": "there\n"})
    blob = followed.remote("rev-parse", "main:README.txt")
    lost = followed.forge / "objects" / blob[:2] / blob[2:]
    content = lost.read_bytes()
    lost.unlink()
    job = followed.set_cache(redis=False)
    found = followed.following.look()
    assert found.state is State.UNREACHABLE
    assert found.message
    assert followed.local("rev-parse", "main") == followed.job(job).revision
    assert followed.following.upstream.accepted() == start
    fsck(followed.store)
    lost.write_bytes(content)
    assert followed.following.look().state is State.IN_STEP
    assert followed.job(job).revision == followed.both()


@pytest.mark.parametrize("name", ["refs/trueup/upstream", "refs/trueup/accepted", "refs/heads/main"])
def test_the_lock_of_a_killed_git_is_removed(followed: Followed, person: Clone, name: str) -> None:
    person.push({"README.txt": "there\n"})
    lock = followed.store / f"{name}.lock"
    lock.touch()
    os.utime(lock, (time.time() - 60,) * 2)
    until(lambda: followed.following.look().state is State.IN_STEP, "the lock to be removed")
    followed.both()
    assert not lock.exists()


def test_one_at_a_time_follows(followed: Followed) -> None:
    with followed.following._alone() as mine:
        assert mine
        before = followed.both()
        followed.set_cache(redis=False)
        followed.following.look()
        assert followed.remote("rev-parse", "main") == before
    assert followed.following.look().state is State.IN_STEP
    followed.both()
