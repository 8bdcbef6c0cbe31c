"""A worker that does nothing but prove that it is alone: run by the tests as a process of its own, and killed.

``python -m tests.records.worker_process URL DIRECTORY NAME``. While it has a job it holds an operating system's
lock on a file for each of the job's locks; the system frees those when the process dies. Finding one taken means
that two jobs overlapped, which it writes to ``overlaps``.
"""

from __future__ import annotations

import fcntl
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


def occupy(directory: Path, lock: Lock, stack: ExitStack) -> bool:
    for slot in range(lock.capacity):
        file = (directory / f"{lock.resource.replace(':', '_')}.{slot}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        stack.enter_context(file)
        return True
    return False


def work(queue: Queue, claimed: Claimed, directory: Path) -> None:
    with ExitStack() as stack:
        for lock in claimed.job.locks:
            if not occupy(directory, lock, stack):
                note(directory, "overlaps", f"{claimed.job.id} {lock.resource}")
        for _ in range(random.randint(1, 4)):
            time.sleep(0.02)
            queue.heartbeat(claimed.job.id, claimed.fence, now())
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
