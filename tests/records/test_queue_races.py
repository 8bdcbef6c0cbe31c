"""Many workers at once: threads of one process, and processes that are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, Lock

import pytest
from sqlalchemy import Engine, func, select

from reconciler.core.jobs import JobStatus
from reconciler.records.database import reading
from reconciler.records.jobs import JobFilter, Jobs
from reconciler.records.locks import Lock as JobLock
from reconciler.records.outcomes import Succeeded
from reconciler.records.queue import Queue
from reconciler.records.tables import locks
from tests.proof import count
from tests.records.examples import NOON, after, new_job

THREADS = 16
ROOT = Path(__file__).parents[2]


def mixed_jobs(number: int, **values: object) -> list:
    rng = random.Random(7)
    return [
        new_job(f"site:{rng.randrange(6)}", JobLock(f"node:{rng.randrange(3)}", 2), **values) for _ in range(number)
    ]


def test_sixteen_threads_run_each_job_once_and_never_share_a_lock(engine: Engine, jobs: Jobs, queue: Queue) -> None:
    made = jobs.enqueue_all(mixed_jobs(120), NOON)
    runs: Counter[object] = Counter()
    busy: Counter[str] = Counter()
    overlaps: list[str] = []
    guard = Lock()

    def enter_or_leave(taken: tuple[JobLock, ...], step: int) -> None:
        with guard:
            for lock in taken:
                busy[lock.resource] += step
                if busy[lock.resource] > lock.capacity:
                    overlaps.append(lock.resource)

    def worker(number: int) -> None:
        while True:
            claimed = queue.claim(f"w{number}", after(seconds=1))
            if claimed is None:
                if not jobs.counts()[JobStatus.QUEUED]:
                    return
                time.sleep(0.005)
                continue
            enter_or_leave(claimed.job.locks, +1)
            with guard:
                runs[claimed.job.id] += 1
            time.sleep(0.002)
            enter_or_leave(claimed.job.locks, -1)
            queue.finish(claimed.job.id, claimed.fence, Succeeded(), after(seconds=2))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(worker, range(THREADS)))
    assert runs == Counter({job.id: 1 for job in made})
    assert overlaps == []
    assert jobs.counts()[JobStatus.SUCCEEDED] == len(made)


def test_one_of_sixteen_gets_the_job(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue(new_job("site:a"), NOON)
    start = Barrier(THREADS)

    def claim(number: int) -> bool:
        start.wait()
        return queue.claim(f"w{number}", NOON) is not None

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(claim, range(THREADS))) == 1


def test_one_of_sixteen_makes_the_job(jobs: Jobs) -> None:
    start = Barrier(THREADS)

    def enqueue(_: int) -> object:
        start.wait()
        return jobs.enqueue(new_job(dedupe_key="observe:n"), NOON).id

    with ThreadPoolExecutor(THREADS) as pool:
        assert len(set(pool.map(enqueue, range(THREADS)))) == 1
    assert len(jobs.page().jobs) == 1


def test_cancelling_while_claiming_does_one_or_the_other(jobs: Jobs, queue: Queue) -> None:
    made = jobs.enqueue_all([new_job() for _ in range(40)], NOON)

    def cancel_all() -> None:
        for job in made:
            jobs.cancel(job.id, NOON)

    def claim_all() -> int:
        return sum(queue.claim("w", NOON) is not None for _ in range(60))

    with ThreadPoolExecutor(3) as pool:
        cancelling, *claiming = pool.submit(cancel_all), pool.submit(claim_all), pool.submit(claim_all)
        cancelling.result()
        claimed = sum(future.result() for future in claiming)
    running = jobs.page(JobFilter(statuses=frozenset({JobStatus.RUNNING}))).jobs
    assert len(running) == claimed
    assert all(job.cancel_requested for job in running)
    assert jobs.counts()[JobStatus.CANCELLED] == len(made) - claimed


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_killed_workers_lose_nothing_and_share_nothing(
    database_url: str, engine: Engine, jobs: Jobs, tmp_path: Path
) -> None:
    """Four processes; one of them is killed again and again in the middle of whatever it does."""
    made = jobs.enqueue_all(mixed_jobs(count(short=40, full=150), max_attempts=50), datetime.now(UTC))
    marks = tmp_path / "marks"
    marks.mkdir()

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.records.worker_process", database_url, str(marks), name]
        return subprocess.Popen(command, cwd=ROOT, stderr=(marks / f"{name}.log").open("wb"))

    def waiting() -> int:
        return sum(jobs.counts()[status] for status in (JobStatus.QUEUED, JobStatus.RUNNING))

    kills = replaced = 0
    wanted, most = count(short=2, full=5), count(short=12, full=60)
    workers = [start(f"w{number}") for number in range(4)]
    try:
        while waiting() or kills < wanted:
            time.sleep(random.uniform(0.2, 0.5))
            if kills < wanted and not waiting():  # a quick machine has done them all before enough was tried
                made += jobs.enqueue_all(mixed_jobs(40, max_attempts=50), datetime.now(UTC))
            started = len((marks / "started").read_text().split()) if (marks / "started").exists() else 0
            if started <= replaced or kills >= most:  # else a slow machine would come to nothing
                continue
            victim = random.randrange(len(workers))
            kills += workers[victim].poll() is None
            workers[victim].kill()
            workers[victim].wait()
            replaced += 1
            workers[victim] = start(f"k{replaced}")
        assert all(worker.wait(timeout=300) == 0 for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert not (marks / "overlaps").exists(), (marks / "overlaps").read_text()
    assert jobs.counts()[JobStatus.SUCCEEDED] == len(made)
    told = Counter((marks / "finished").read_text().split())
    assert max(told.values()) == 1, "a job was finished twice"
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(locks)).scalar_one() == 0
