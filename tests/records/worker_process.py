"""A worker that does nothing but prove that it is alone: run by the tests as a process of its own, and killed.

``python -m tests.records.worker_process URL DIRECTORY NAME``. While it has a job it holds an operating system's
lock on a file for each of the job's locks; the system frees those when the process dies. Finding one taken means
that two jobs overlapped, which it writes to ``overlaps`` unless the lease of who holds it was over by then: a machine
that is busy may let a process sleep for longer than that, and the fence tells it so when it wakes.
"""

from __future__ import annotations

import fcntl
import os
import random
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reconciler.core.errors import LateFence
from reconciler.core.jobs import JobStatus
from reconciler.records.database import open_database
from reconciler.records.jobs import Jobs
from reconciler.records.locks import Lock
from reconciler.records.outcomes import Succeeded
from reconciler.records.queue import Claimed, Queue

LEASE = timedelta(seconds=2)


def now() -> datetime:
    return datetime.now(UTC)


def note(directory: Path, name: str, line: str) -> None:
    with (directory / name).open("a") as file:
        file.write(line + "\n")


class Held:
    """The files of a job's locks, each with the moment until which its holder's lease lasts.

    That moment is never later than the database's, so nobody whose lease lasts is met by right.
    """

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._files: list[int] = []

    def occupy(self, lock: Lock, until: datetime) -> bool:
        """Whether it is ours from now on, or was its holder's no more when we got it."""
        over = False
        for slot in range(lock.capacity):
            path = self._directory / f"{lock.resource.replace(':', '_')}.{slot}"
            file = os.open(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held_until = os.pread(file, 64, 0).decode()
                over = over or (bool(held_until) and datetime.fromisoformat(held_until) < until - LEASE)
                os.close(file)
                continue
            self._stack.callback(os.close, file)
            self._files.append(file)
            self.extend(until)
            return True
        return over

    def extend(self, until: datetime) -> None:
        for file in self._files:
            # In one write of the same length, so that nobody reads half of it.
            os.pwrite(file, until.isoformat(timespec="microseconds").encode(), 0)


def work(queue: Queue, claimed: Claimed, directory: Path) -> None:
    with ExitStack() as stack:
        held = Held(directory, stack)
        for lock in claimed.job.locks:
            assert claimed.job.lease_until
            if not held.occupy(lock, claimed.job.lease_until):
                note(directory, "overlaps", f"{claimed.job.id} {lock.resource}")
        for _ in range(random.randint(1, 4)):
            time.sleep(0.02)
            beat = now()
            queue.heartbeat(claimed.job.id, claimed.fence, beat)
            held.extend(beat + LEASE)
    queue.finish(claimed.job.id, claimed.fence, Succeeded(), now())
    note(directory, "finished", str(claimed.job.id))


def main(url: str, directory: Path, name: str) -> None:
    engine = open_database(url)
    queue, jobs = Queue(engine, lease=LEASE), Jobs(engine)
    note(directory, "started", name)
    while True:
        queue.expire(now())
        claimed = queue.claim(name, now())
        if claimed is None:
            counts = jobs.counts()
            if not counts[JobStatus.QUEUED] and not counts[JobStatus.RUNNING]:
                return
            time.sleep(0.05)
            continue
        try:
            work(queue, claimed, directory)
        except LateFence:
            note(directory, "late", str(claimed.job.id))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
