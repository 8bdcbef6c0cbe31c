"""The callers' side of the job store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from reconciler.core.errors import Conflict, Invalid, NotFound
from reconciler.core.jobs import JobStatus
from reconciler.records.jobs import FINISHED, OPEN, Job, JobFilter, Jobs
from reconciler.records.outcomes import Failed, Succeeded
from reconciler.records.queue import Queue
from tests.records.examples import NOON, after, new_job


def test_a_job_comes_back_as_it_was_given(jobs: Jobs) -> None:
    new = new_job(
        "site:a",
        "node:b",
        site_id=uuid4(),
        environment_id=uuid4(),
        node_id=uuid4(),
        intent={"operation": "site-create", "name": "Zoë's \0 shop"},
        declared=True,
        dedupe_key="k",
        run_after=after(hours=1),
    )
    stored = jobs.enqueue(new, NOON)
    assert jobs.get(new.id) == stored
    assert stored.status is JobStatus.QUEUED
    assert (stored.locks, stored.intent, stored.node_id) == (new.locks, new.intent, new.node_id)
    assert (stored.run_after, stored.created_at, stored.attempt_count) == (after(hours=1), NOON, 0)


def test_times_come_back_in_utc_whatever_they_came_in(jobs: Jobs) -> None:
    local = datetime(2026, 3, 1, 14, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2, minutes=30)))
    job = jobs.enqueue(new_job(), local)
    stored = jobs.get(job.id).created_at
    assert stored == local
    assert stored.tzinfo is UTC
    with pytest.raises(Exception, match="no time zone"):
        jobs.enqueue(new_job(), local.replace(tzinfo=None))


def test_several_jobs_or_none(jobs: Jobs) -> None:
    twice = new_job()
    with pytest.raises(Exception, match=r"could not be read or written"):
        jobs.enqueue_all([new_job(), twice, twice], NOON)
    assert jobs.page().jobs == ()
    with pytest.raises(ValueError, match="names a lock twice"):
        jobs.enqueue(new_job("site:a", "site:a"), NOON)


def test_a_queued_job_with_the_same_key_stands_for_both(jobs: Jobs, queue: Queue) -> None:
    first = jobs.enqueue(new_job(dedupe_key="observe:a"), NOON)
    assert jobs.enqueue(new_job(dedupe_key="observe:a"), after(seconds=1)) == first
    assert jobs.enqueue(new_job(dedupe_key="observe:b"), after(seconds=1)).id != first.id
    queue.claim("w", NOON)
    later = jobs.enqueue(new_job(dedupe_key="observe:a"), after(seconds=2))
    assert later.id != first.id, "a job that runs may have looked already: another one is needed"


def test_a_retry_gives_its_key_up_to_the_job_that_was_queued_meanwhile(jobs: Jobs, queue: Queue) -> None:
    first = jobs.enqueue(new_job(dedupe_key="k"), NOON)
    claimed = queue.claim("w", NOON)
    assert claimed is not None
    second = jobs.enqueue(new_job(dedupe_key="k"), NOON)
    again = queue.finish(first.id, claimed.fence, Failed("ANSIBLE_TIMEOUT", "slow"), NOON)
    assert (again.status, again.dedupe_key) == (JobStatus.QUEUED, None)
    assert jobs.enqueue(new_job(dedupe_key="k"), NOON) == second


def test_declared_jobs_wait_for_their_commit(jobs: Jobs, queue: Queue) -> None:
    declared = jobs.enqueue(new_job("site:a", declared=True), NOON)
    free = jobs.enqueue(new_job("site:a"), after(seconds=1))
    assert [job.id for job in jobs.uncommitted()] == [declared.id]
    claimed = queue.claim("w", after(seconds=2))
    assert claimed is not None
    assert claimed.job.id == free.id, "a job that may not run yet holds nobody back"
    queue.finish(free.id, claimed.fence, Succeeded(), after(seconds=3))
    jobs.mark_committed(declared.id, "abc123", after(seconds=3))
    jobs.mark_committed(declared.id, "abc123", after(seconds=4))
    assert jobs.uncommitted() == []
    assert jobs.get(declared.id).updated_at == after(seconds=3)
    with pytest.raises(Conflict, match="declared by commit abc123 already"):
        jobs.mark_committed(declared.id, "def456", NOON)
    claimed = queue.claim("w", after(seconds=5))
    assert claimed is not None
    assert (claimed.job.id, claimed.job.revision) == (declared.id, "abc123")


def test_marking_several_is_all_or_nothing(jobs: Jobs) -> None:
    known = jobs.enqueue(new_job(declared=True), NOON)
    with pytest.raises(NotFound):
        jobs.mark_all_committed({known.id: "abc", uuid4(): "def"}, NOON)
    assert jobs.get(known.id).revision is None


def test_a_job_whose_commit_was_refused_can_be_forgotten(jobs: Jobs) -> None:
    refused = jobs.enqueue(new_job(declared=True), NOON)
    jobs.discard(refused.id)
    with pytest.raises(NotFound, match=str(refused.id)):
        jobs.get(refused.id)
    committed = jobs.enqueue(new_job(declared=True), NOON)
    jobs.mark_committed(committed.id, "abc", NOON)
    for keep in (committed, jobs.enqueue(new_job(), NOON)):
        with pytest.raises(Conflict, match="not waiting for its commit"):
            jobs.discard(keep.id)
        assert jobs.get(keep.id).status is JobStatus.QUEUED


def test_reject_fails_what_can_never_run(jobs: Jobs, queue: Queue) -> None:
    job = jobs.enqueue(new_job(declared=True), NOON)
    rejected = jobs.reject(job.id, "INTENT_OUTDATED", "The site is gone. Nothing to do.", after(seconds=1))
    assert (rejected.status, rejected.error_code) == (JobStatus.FAILED, "INTENT_OUTDATED")
    assert (rejected.finished_at, jobs.get(job.id)) == (after(seconds=1), rejected)
    assert queue.claim("w", after(hours=1)) is None
    with pytest.raises(Conflict, match="is failed"):
        jobs.reject(job.id, "X", "again", NOON)


def test_cancel(jobs: Jobs, queue: Queue) -> None:
    waiting = jobs.enqueue(new_job(), NOON)
    assert jobs.cancel(waiting.id, NOON).status is JobStatus.CANCELLED
    assert queue.claim("w", NOON) is None
    assert jobs.cancel(waiting.id, after(seconds=1)) == jobs.get(waiting.id), "again changes nothing"
    ended = jobs.enqueue(new_job(), NOON)
    jobs.reject(ended.id, "JOB_CONFLICT", "no", NOON)
    with pytest.raises(Conflict, match="is failed"):
        jobs.cancel(ended.id, NOON)
    coming = jobs.enqueue(new_job(declared=True), NOON)
    with pytest.raises(Conflict, match="being committed"):
        jobs.cancel(coming.id, NOON)
    with pytest.raises(NotFound):
        jobs.cancel(uuid4(), NOON)
    running = jobs.enqueue(new_job(), NOON)
    queue.claim("w", NOON)
    asked = jobs.cancel(running.id, NOON)
    assert (asked.status, asked.cancel_requested) == (JobStatus.RUNNING, True)


def test_pages_hold_every_job_once_newest_first(jobs: Jobs) -> None:
    made = jobs.enqueue_all([new_job() for _ in range(7)], NOON)
    made += [jobs.enqueue(new_job(), after(seconds=1, microseconds=n)) for n in range(4)]
    seen: list[Job] = []
    cursor = None
    while True:
        page = jobs.page(limit=3, cursor=cursor)
        seen += page.jobs
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted(made, key=lambda job: (job.created_at, job.id), reverse=True)
    assert jobs.page(limit=11).next_cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "💥", "bm90IGEgY3Vyc29y", "MjAyNi0wMS0wMSAx"])
def test_a_cursor_from_elsewhere_is_refused(jobs: Jobs, cursor: str) -> None:
    with pytest.raises(Invalid, match="cursor"):
        jobs.page(cursor=cursor)


def test_filters_and_counts(jobs: Jobs, queue: Queue) -> None:
    site, environment = uuid4(), uuid4()
    mine = jobs.enqueue(new_job(site_id=site, environment_id=environment, job_type="deploy"), NOON)
    jobs.enqueue(new_job(ephemeral=True, dedupe_key="o"), after(seconds=1))
    queue.claim("w", NOON)
    for wanted in (
        JobFilter(site_id=site),
        JobFilter(environment_id=environment),
        JobFilter(job_types=frozenset({"deploy"})),
        JobFilter(statuses=frozenset({JobStatus.RUNNING})),
        JobFilter(ephemeral=False),
    ):
        assert [job.id for job in jobs.page(wanted).jobs] == [mine.id], wanted
    assert len(jobs.page(JobFilter(dedupe_key="o")).jobs) == 1
    assert len(jobs.page(JobFilter(statuses=OPEN)).jobs) == 2
    assert jobs.page(JobFilter(statuses=FINISHED)).jobs == ()
    assert jobs.page(JobFilter(node_id=uuid4())).jobs == ()
    none = dict.fromkeys(JobStatus, 0)
    assert jobs.counts() == none | {JobStatus.RUNNING: 1, JobStatus.QUEUED: 1}
    assert jobs.counts(JobFilter(ephemeral=False)) == none | {JobStatus.RUNNING: 1}


def test_prune_forgets_what_ended_long_ago(jobs: Jobs, queue: Queue) -> None:
    old, recent, waiting = (jobs.enqueue(new_job(), after(seconds=n)) for n in range(3))
    for end in (after(days=1), after(days=2)):
        claimed = queue.claim("w", after(minutes=1))
        assert claimed is not None
        queue.finish(claimed.job.id, claimed.fence, Succeeded(), end)
    assert jobs.prune(after(days=2)) == 1
    assert {job.id for job in jobs.page().jobs} == {recent.id, waiting.id}
    assert old.id not in {job.id for job in jobs.page().jobs}


def test_text_that_no_database_stores_is_replaced(jobs: Jobs, queue: Queue) -> None:
    job = jobs.enqueue(new_job(), NOON)
    claimed = queue.claim("host\udcff:1", NOON)
    assert claimed is not None
    failed = queue.finish(job.id, claimed.fence, Failed("X", "a\0b\udcffc", {"raw": "\0 \ud800"}), NOON)
    assert failed.error_message == r"a\x00b\udcffc"
    assert failed.result == {"raw": "\0 \ud800"}


def test_the_answer_is_what_a_fresh_look_finds(engine: Engine, jobs: Jobs, queue: Queue) -> None:
    job = jobs.enqueue(new_job("site:a"), NOON)
    claimed = queue.claim("w", after(seconds=1))
    assert claimed is not None
    assert claimed.job == Jobs(engine).get(job.id)
    ended = queue.finish(job.id, claimed.fence, Succeeded({"url": "http://x"}), after(seconds=2))
    assert ended == Jobs(engine).get(job.id)
    assert replace(ended, result=None) != ended


def test_what_waits_for_a_node_that_is_back_runs_at_once(jobs: Jobs, queue: Queue) -> None:
    node, other = uuid4(), uuid4()
    away, failed, elsewhere = (new_job(node_id=where) for where in (node, node, other))
    for job, code in (
        (away, "ANSIBLE_HOST_UNREACHABLE"),
        (failed, "ANSIBLE_HOST_FAILED"),
        (elsewhere, "ANSIBLE_HOST_UNREACHABLE"),
    ):
        jobs.enqueue(job, NOON)
        claimed = queue.claim("w", NOON)
        assert claimed is not None
        queue.finish(job.id, claimed.fence, Failed(code, "no"), NOON)
    assert queue.claim("w", after(seconds=10)) is None
    assert jobs.hurry(node, "ANSIBLE_HOST_UNREACHABLE", after(seconds=10)) == 1
    claimed = queue.claim("w", after(seconds=10))
    assert claimed is not None
    assert claimed.job.id == away.id
    assert queue.claim("w", after(seconds=10)) is None
