"""The job store against a model of it, whatever the order of steps."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from reconciler.core.errors import Conflict, LateFence
from reconciler.core.jobs import JobStatus
from reconciler.records.database import migrate, open_database, reading, sqlite_url
from reconciler.records.jobs import FINISHED, Job, Jobs
from reconciler.records.locks import Lock
from reconciler.records.outcomes import Failed, Outcome, Stopped, Succeeded
from reconciler.records.queue import LEASE, Claimed, Queue
from reconciler.records.tables import locks
from tests.proof import count
from tests.records.examples import NOON, new_job

FAST = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # nothing here is about surviving power loss


class JobStore(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir=FAST))
        self.engine = open_database(sqlite_url(self.directory / "records.db"))
        self.now: datetime = NOON
        self.claims: list[Claimed] = []
        self.ended: dict[object, Job] = {}
        self.fence = 0
        self.made = 0

    @initialize()
    def begin(self) -> None:
        migrate(self.engine)
        self.jobs, self.queue = Jobs(self.engine), Queue(self.engine)

    def teardown(self) -> None:
        self.engine.dispose()
        shutil.rmtree(self.directory)

    def all(self) -> list[Job]:
        return list(reversed(self.jobs.page(limit=1000).jobs))

    @rule(
        site=st.sampled_from("ab"),
        node=st.sampled_from("mn"),
        declared=st.booleans(),
        key=st.sampled_from([None, "k"]),
        delay=st.sampled_from([0, 0, 0, 30]),
    )
    def enqueue(self, site: str, node: str, declared: bool, key: str | None, delay: int) -> None:
        queued = [job for job in self.all() if job.status is JobStatus.QUEUED and key and job.dedupe_key == key]
        self.made += 1
        new = new_job(
            f"site:{site}",
            Lock(f"node:{node}", 2),
            id=UUID(int=self.made),  # a random one would order jobs of the same moment differently each time
            declared=declared,
            dedupe_key=key,
            run_after=self.now + timedelta(seconds=delay),
        )
        job = self.jobs.enqueue(new, self.now)
        assert job.id == (queued[0].id if queued else new.id)

    @rule(seconds=st.sampled_from([1, 20, 61, 300]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def commit_the_oldest(self) -> None:
        for job in self.jobs.uncommitted()[:1]:
            self.jobs.mark_committed(job.id, "abc", self.now)

    @rule()
    def claim(self) -> None:
        expected = self.expected()
        claimed = self.queue.claim("w", self.now)
        assert (claimed and claimed.job.id) == (expected and expected.id)
        if claimed:
            assert claimed.fence > self.fence
            self.fence = claimed.fence
            self.claims.append(claimed)

    def expected(self) -> Job | None:
        """Which job the rule of ``locks`` names, worked out anew from what is stored."""
        jobs = self.all()
        held = Counter(lock.resource for job in jobs if job.status is JobStatus.RUNNING for lock in job.locks)
        for job in jobs:
            ready = job.status is JobStatus.QUEUED and job.run_after <= self.now
            if not ready or (job.declared and job.revision is None):
                continue
            site, node = job.locks
            site_free, node_free = held[site.resource] < 1, held[node.resource] < 2
            if site_free and node_free:
                return job
            held[site.resource] += 1
            held[node.resource] += 1 if site_free else 0
        return None

    def still_held(self, claimed: Claimed) -> bool:
        job = self.jobs.get(claimed.job.id)
        return job.status is JobStatus.RUNNING and job.fence == claimed.fence

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        outcome=st.sampled_from([Succeeded(), Stopped(), Failed("ANSIBLE_TIMEOUT", "slow"), Failed("X", "final")]),
    )
    def finish(self, data: st.DataObject, outcome: Outcome) -> None:
        claimed = data.draw(st.sampled_from(self.claims))
        if self.still_held(claimed):
            self.queue.finish(claimed.job.id, claimed.fence, outcome, self.now)
            return
        before = self.all()
        with pytest.raises(LateFence):
            self.queue.finish(claimed.job.id, claimed.fence, outcome, self.now)
        assert self.all() == before

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        claimed = data.draw(st.sampled_from(self.claims))
        if self.still_held(claimed):
            asked = self.queue.heartbeat(claimed.job.id, claimed.fence, self.now)
            assert asked == self.jobs.get(claimed.job.id).cancel_requested
            return
        with pytest.raises(LateFence):
            self.queue.heartbeat(claimed.job.id, claimed.fence, self.now)

    @precondition(lambda self: self.claims)
    @rule()
    def give_back_the_newest(self) -> None:
        if self.still_held(self.claims[-1]):
            self.queue.release(self.claims[-1].job.id, self.claims[-1].fence, self.now)

    @rule()
    def expire(self) -> None:
        over = {
            job.id
            for job in self.all()
            if job.status is JobStatus.RUNNING and job.lease_until and job.lease_until < self.now
        }
        assert {lost.job.id for lost in self.queue.expire(self.now)} == over

    @rule()
    def everybody_dies(self) -> None:
        running = {job.id for job in self.all() if job.status is JobStatus.RUNNING}
        assert {lost.job.id for lost in self.queue.reclaim(lambda who: who == "w", self.now)} == running

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        jobs = self.all()
        if not jobs:
            return
        job = data.draw(st.sampled_from(jobs))
        if job.status is JobStatus.CANCELLED:
            assert self.jobs.cancel(job.id, self.now) == job
            return
        if job.status in FINISHED or (job.declared and job.revision is None):
            with pytest.raises(Conflict):
                self.jobs.cancel(job.id, self.now)
            return
        assert self.jobs.cancel(job.id, self.now).status in {JobStatus.RUNNING, JobStatus.CANCELLED}

    @invariant()
    def locks_are_those_of_the_running_jobs(self) -> None:
        if not hasattr(self, "jobs"):
            return
        jobs = self.all()
        with reading(self.engine) as connection:
            rows = connection.execute(select(locks)).all()
        running = [job for job in jobs if job.status is JobStatus.RUNNING]
        assert Counter((row.resource, row.job_id, row.fence) for row in rows) == Counter(
            (lock.resource, job.id, job.fence) for job in running for lock in job.locks
        )
        assert all(row.slot < (1 if row.resource.startswith("site") else 2) for row in rows)
        for job in running:
            assert job.lease_until is not None
            assert job.lease_until <= self.now + LEASE
        assert all(job.attempt_count <= job.max_attempts for job in jobs)

    @invariant()
    def what_ended_stays_as_it_ended(self) -> None:
        if not hasattr(self, "jobs"):
            return
        jobs = {job.id: job for job in self.all()}
        for job_id, job in self.ended.items():
            assert jobs[job_id] == job
        for job in jobs.values():
            assert (job.finished_at is not None) == (job.status in FINISHED)
            if job.status in FINISHED:
                self.ended[job.id] = job


JobStore.TestCase.settings = settings(max_examples=count(short=8, full=25), stateful_step_count=30)
TestJobStore = JobStore.TestCase
