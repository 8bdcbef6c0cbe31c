"""The workers' side of the job store, one step at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event, func, select, update

from reconciler.core.errors import LateFence, NotFound
from reconciler.core.jobs import JobErrorCode, JobStatus
from reconciler.records.database import reading
from reconciler.records.events import EventKind, Events
from reconciler.records.jobs import Job, JobFilter, Jobs, NewJob
from reconciler.records.locks import Lock
from reconciler.records.outcomes import Failed, Stopped, Succeeded
from reconciler.records.queue import Claimed, Queue
from reconciler.records.tables import fences, locks
from tests.records.examples import NOON, after, new_job


def take(queue: Queue, seconds: float = 0) -> Claimed:
    claimed = queue.claim("host:1:0", after(seconds=seconds))
    assert claimed is not None
    return claimed


def locks_held(engine: Engine) -> int:
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(locks)).scalar_one()


def test_a_claim_takes_the_oldest_job_and_its_locks(engine: Engine, jobs: Jobs, queue: Queue) -> None:
    young = jobs.enqueue(new_job("site:a"), after(seconds=1))
    old = jobs.enqueue(new_job("site:a", "node:n"), NOON)
    claimed = take(queue, 2)
    assert claimed.job.id == old.id
    assert (claimed.job.status, claimed.job.attempt_count) == (JobStatus.RUNNING, 1)
    assert (claimed.job.locked_by, claimed.job.locked_at) == ("host:1:0", after(seconds=2))
    assert claimed.job.lease_until == after(seconds=62)
    assert locks_held(engine) == 2
    assert queue.claim("w", after(seconds=3)) is None
    queue.finish(old.id, claimed.fence, Succeeded(), after(seconds=4))
    assert locks_held(engine) == 0
    assert take(queue, 5).job.id == young.id


def test_every_claim_has_a_larger_fence(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue_all([new_job() for _ in range(5)], NOON)
    fences = [take(queue).fence for _ in range(5)]
    assert fences == sorted(set(fences))
    assert queue.claim("w", NOON) is None


def test_a_fence_of_an_emptied_database_is_larger_than_those_that_nodes_remember(
    engine: Engine, jobs: Jobs, queue: Queue
) -> None:
    jobs.enqueue_all([new_job() for _ in range(60)], NOON)
    before = max(take(queue).fence for _ in range(50))
    with engine.begin() as connection:
        connection.execute(update(fences).values(value=0))
    assert take(queue, 1).fence > before


def test_a_clock_that_was_set_back_makes_no_fence_smaller(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue_all([new_job() for _ in range(2)], NOON - timedelta(days=2))
    before = take(queue).fence
    assert take(queue, -86_400).fence == before + 1


def test_a_node_runs_as_many_as_its_capacity(jobs: Jobs, queue: Queue) -> None:
    made = [jobs.enqueue(new_job(f"site:{n}", Lock("node:n", 2)), after(seconds=n)) for n in range(4)]
    first, second = take(queue, 9), take(queue, 9)
    assert [first.job.id, second.job.id] == [made[0].id, made[1].id]
    assert queue.claim("w", after(seconds=9)) is None
    queue.finish(second.job.id, second.fence, Succeeded(), after(seconds=10))
    assert take(queue, 11).job.id == made[2].id
    assert queue.claim("w", after(seconds=11)) is None


def test_nobody_overtakes_at_a_lock_and_nobody_starves(jobs: Jobs, queue: Queue) -> None:
    """A stream of young jobs for node n cannot keep the old job from it, though its site was busy at first."""
    blocker = jobs.enqueue(new_job("site:a", "node:m"), NOON)
    busy = take(queue)
    assert busy.job.id == blocker.id
    old = jobs.enqueue(new_job("site:a", "node:n"), after(seconds=1))
    jobs.enqueue_all([new_job(f"site:{n}", "node:n") for n in range(5)], after(seconds=2))
    young = take(queue, 3)
    assert young.job.id != old.id, "the old job cannot use node n yet, so it is not kept idle"
    queue.finish(blocker.id, busy.fence, Succeeded(), after(seconds=4))
    assert queue.claim("w", after(seconds=4)) is None
    queue.finish(young.job.id, young.fence, Succeeded(), after(seconds=5))
    assert take(queue, 6).job.id == old.id


def test_a_worker_of_one_kind_leaves_the_others_their_turn(jobs: Jobs, queue: Queue) -> None:
    other = jobs.enqueue(new_job("node:n", job_type="deploy"), NOON)
    jobs.enqueue(new_job("node:n", job_type="node-observe"), after(seconds=1))
    free = jobs.enqueue(new_job(job_type="node-observe"), after(seconds=2))
    claimed = queue.claim("w", after(seconds=3), {"node-observe"})
    assert claimed is not None
    assert claimed.job.id == free.id
    assert queue.claim("w", after(seconds=3), {"node-observe"}) is None
    assert take(queue, 3).job.id == other.id


def test_work_waits_for_its_time(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue(new_job("site:a", run_after=after(minutes=1)), NOON)
    sooner = jobs.enqueue(new_job("site:a"), after(seconds=1))
    claimed = take(queue, 59)
    assert claimed.job.id == sooner.id, "what waits for its time holds nobody back"
    queue.finish(sooner.id, claimed.fence, Succeeded(), after(seconds=59))
    assert queue.claim("w", after(seconds=59)) is None
    assert take(queue, 60)


def test_failures_that_may_mend_are_tried_again(jobs: Jobs, queue: Queue) -> None:
    job_id = jobs.enqueue(new_job("site:a", max_attempts=4), NOON).id
    now = NOON
    for attempt, minutes in enumerate((1, 5, 15), start=1):
        claimed = queue.claim("w", now)
        assert claimed is not None
        assert claimed.job.attempt_count == attempt
        waiting = queue.finish(job_id, claimed.fence, Failed("ANSIBLE_HOST_FAILED", "no luck"), now)
        assert (waiting.status, waiting.error_code) == (JobStatus.QUEUED, "ANSIBLE_HOST_FAILED")
        assert waiting.run_after == now + timedelta(minutes=minutes)
        assert (waiting.locked_by, waiting.finished_at) == (None, None)
        assert queue.claim("w", waiting.run_after - timedelta(seconds=1)) is None
        now = waiting.run_after
    claimed = queue.claim("w", now)
    assert claimed is not None
    failed = queue.finish(job_id, claimed.fence, Failed("ANSIBLE_HOST_FAILED", "no luck"), now)
    assert (failed.status, failed.finished_at, failed.started_at) == (JobStatus.FAILED, now, NOON)


def test_three_attempts_unless_said_otherwise(jobs: Jobs, queue: Queue) -> None:
    job_id = jobs.enqueue(new_job(), NOON).id
    for hour in range(3):
        claimed = queue.claim("w", after(hours=hour))
        assert claimed is not None
        ended = queue.finish(job_id, claimed.fence, Failed("ANSIBLE_TIMEOUT", "slow"), after(hours=hour))
    assert (ended.status, ended.attempt_count) == (JobStatus.FAILED, 3)


def test_final_failures_are_final(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue(new_job(), NOON)
    claimed = take(queue)
    failed = queue.finish(claimed.job.id, claimed.fence, Failed("CHECKSUM_WRONG", "not the file"), NOON)
    assert (failed.status, failed.error_message) == (JobStatus.FAILED, "not the file")
    assert queue.claim("w", after(days=1)) is None


def test_success_after_a_failure_leaves_no_error(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue(new_job(), NOON)
    claimed = take(queue)
    queue.finish(claimed.job.id, claimed.fence, Failed("ANSIBLE_TIMEOUT", "slow"), NOON)
    claimed = take(queue, 60)
    ended = queue.finish(claimed.job.id, claimed.fence, Succeeded({"n": 1}), after(seconds=61))
    assert (ended.status, ended.error_code, ended.error_message) == (JobStatus.SUCCEEDED, None, None)
    assert ended.result == {"n": 1}


def test_a_heartbeat_extends_the_lease(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue(new_job(), NOON)
    claimed = take(queue)
    assert queue.heartbeat(claimed.job.id, claimed.fence, after(seconds=50)) is False
    assert queue.expire(after(seconds=109)) == []
    assert jobs.get(claimed.job.id).lease_until == after(seconds=110)
    assert len(queue.expire(after(seconds=111))) == 1


def test_whoever_lost_the_lease_is_late(engine: Engine, jobs: Jobs, queue: Queue) -> None:
    job_id = jobs.enqueue(new_job("site:a"), NOON).id
    late = take(queue)
    (lost,) = queue.expire(after(seconds=61))
    assert (lost.job.id, lost.fence, lost.locked_by) == (job_id, late.fence, "host:1:0")
    assert lost.job.status is JobStatus.QUEUED
    assert locks_held(engine) == 0

    def is_late() -> None:
        before = jobs.get(job_id)
        for act in (
            lambda: queue.finish(job_id, late.fence, Succeeded(), after(seconds=70)),
            lambda: queue.finish(job_id, late.fence, Failed("X", "y"), after(seconds=70)),
            lambda: queue.heartbeat(job_id, late.fence, after(seconds=70)),
            lambda: queue.release(job_id, late.fence, after(seconds=70)),
        ):
            with pytest.raises(LateFence, match=f"fence {late.fence}"):
                act()
        assert jobs.get(job_id) == before

    is_late()
    second = queue.claim("other", after(seconds=62))
    assert second is not None
    assert second.fence > late.fence
    is_late()
    assert locks_held(engine) == 1
    queue.finish(job_id, second.fence, Succeeded(), after(seconds=71))
    is_late()


def test_a_lease_that_ran_out_unnoticed_still_counts(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue(new_job(), NOON)
    claimed = take(queue)
    ended = queue.finish(claimed.job.id, claimed.fence, Succeeded(), after(hours=1))
    assert ended.status is JobStatus.SUCCEEDED


def test_a_job_whose_workers_vanish_fails_in_the_end(jobs: Jobs, queue: Queue) -> None:
    job_id = jobs.enqueue(new_job(), NOON).id
    for minute in range(0, 6, 2):
        assert take(queue, minute * 60).job.id == job_id
        (lost,) = queue.expire(after(minutes=minute + 1.5))
    assert (lost.job.status, lost.job.error_code) == (JobStatus.FAILED, JobErrorCode.JOB_LEASE_LOST)
    assert "host:1:0 vanished in attempt 3 of 3" in (lost.job.error_message or "")


def test_dead_workers_jobs_come_back_at_once(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue_all([new_job(), new_job()], NOON)
    dead, alive = queue.claim("host:1:0", NOON), queue.claim("other:7:0", NOON)
    assert dead is not None
    assert alive is not None
    (lost,) = queue.reclaim(lambda who: who.startswith("host:"), after(seconds=1))
    assert (lost.job.id, lost.job.status, lost.locked_by) == (dead.job.id, JobStatus.QUEUED, "host:1:0")
    assert jobs.get(alive.job.id).status is JobStatus.RUNNING
    assert queue.reclaim(lambda who: who.startswith("host:"), after(seconds=1)) == []


def test_giving_back_is_no_attempt(engine: Engine, jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue(new_job("site:a"), NOON)
    claimed = take(queue)
    back = queue.release(claimed.job.id, claimed.fence, after(seconds=1))
    assert (back.status, back.attempt_count, locks_held(engine)) == (JobStatus.QUEUED, 0, 0)
    assert take(queue, 1).job.attempt_count == 1


def test_a_cancelled_job_is_not_tried_again(jobs: Jobs, queue: Queue) -> None:
    def running() -> Claimed:
        jobs.enqueue(new_job(), NOON)
        claimed = take(queue)
        jobs.cancel(claimed.job.id, NOON)
        assert queue.heartbeat(claimed.job.id, claimed.fence, NOON) is True
        return claimed

    def ended(job: Job) -> JobStatus:
        assert job.finished_at is not None
        return job.status

    stopped = running()
    assert ended(queue.finish(stopped.job.id, stopped.fence, Stopped(), NOON)) is JobStatus.CANCELLED
    failed = running()
    outcome = Failed("ANSIBLE_TIMEOUT", "slow")
    assert ended(queue.finish(failed.job.id, failed.fence, outcome, NOON)) is JobStatus.CANCELLED
    done = running()
    assert ended(queue.finish(done.job.id, done.fence, Succeeded(), NOON)) is JobStatus.SUCCEEDED
    released = running()
    assert ended(queue.release(released.job.id, released.fence, NOON)) is JobStatus.CANCELLED
    running()
    assert ended(queue.expire(after(hours=1))[0].job) is JobStatus.CANCELLED


def test_ephemeral_jobs_leave_no_trace_but_their_last_failure(jobs: Jobs, queue: Queue) -> None:
    def run(outcome: Succeeded | Failed) -> UUID:
        job = jobs.enqueue(new_job(ephemeral=True, dedupe_key="observe:n", max_attempts=1), NOON)
        claimed = take(queue)
        ended = queue.finish(job.id, claimed.fence, outcome, NOON)
        assert ended.status in {JobStatus.SUCCEEDED, JobStatus.FAILED}
        return job.id

    with pytest.raises(NotFound):
        jobs.get(run(Succeeded()))
    jobs.enqueue(new_job(), after(days=-1))
    kept = take(queue)
    queue.finish(kept.job.id, kept.fence, Failed("X", "stays"), NOON)
    run(Failed("ANSIBLE_HOST_UNREACHABLE", "no route"))
    last = run(Failed("ANSIBLE_HOST_UNREACHABLE", "no route"))
    assert [job.id for job in jobs.page(JobFilter(ephemeral=True)).jobs] == [last]
    run(Succeeded())
    assert [job.id for job in jobs.page().jobs] == [kept.job.id]


def test_one_job_is_claimed_in_its_place_in_line_or_past_those_that_wait(jobs: Jobs, queue: Queue) -> None:
    first = jobs.enqueue(new_job("site:a"), NOON)
    mine = jobs.enqueue(new_job("site:a"), after(seconds=1))
    assert queue.claim_one(mine.id, "w", after(seconds=2), in_line=True) is None
    blocker = queue.blocker(mine)
    assert blocker is not None
    assert blocker.id == first.id
    held = queue.claim_one(mine.id, "w", after(seconds=2), in_line=False)
    assert held is not None
    assert held.job.id == mine.id
    assert queue.claim("w", after(seconds=3)) is None, "it has the lock, whoever was before it"
    blocker = queue.blocker(first)
    assert blocker is not None
    assert blocker.id == mine.id


def test_nobody_is_in_the_way_where_a_slot_is_free(jobs: Jobs, queue: Queue) -> None:
    jobs.enqueue(new_job(Lock("node:n", 2)), NOON)
    take(queue)
    mine = jobs.enqueue(new_job(Lock("node:n", 2)), after(seconds=1))
    assert queue.blocker(mine) is None
    assert queue.claim_one(mine.id, "w", after(seconds=2), in_line=True) is not None
    other = jobs.enqueue(new_job(Lock("node:n", 2)), after(seconds=3))
    assert queue.blocker(other) is not None
    assert queue.claim_one(other.id, "w", after(seconds=4), in_line=False) is None, "a lock is a lock"


def drill(*wanted: str, **values: Any) -> NewJob:
    return new_job(*wanted, job_type="drill", **values)


def test_what_gives_way_stops_for_whatever_is_ready_and_needs_its_lock(
    engine: Engine, jobs: Jobs, queue: Queue
) -> None:
    jobs.enqueue(drill("drill:n", "site:a"), NOON)
    a = take(queue)
    jobs.enqueue(drill("drill:m", "site:b"), NOON)
    b = take(queue)
    jobs.enqueue_all([new_job("site:c"), new_job(job_type="node-observe")], after(seconds=1))
    jobs.enqueue(new_job("site:a", declared=True), after(seconds=1))
    jobs.enqueue(new_job("site:a", run_after=after(seconds=60)), after(seconds=1))
    jobs.enqueue_all([drill("drill:n", "site:a"), drill("drill:o", "site:b")], after(seconds=1))
    # Whoever claims, and whatever it takes: a queued job that may not run yet and another drill are nobody's reason.
    for _ in range(3):
        queue.claim("w", after(seconds=2), {"node-observe", "reconcile"})
    assert not queue.heartbeat(a.job.id, a.fence, after(seconds=3))
    assert queue.claim("w", after(seconds=60), {"node-observe"}) is None
    assert queue.heartbeat(a.job.id, a.fence, after(seconds=61))
    assert not queue.heartbeat(b.job.id, b.fence, after(seconds=61))
    (told,) = [one for one in Events(engine).after(a.job.id) if one.kind is EventKind.CANCEL_REQUESTED]
    waiting = jobs.get(UUID(told.data["for_job_id"]))
    assert waiting.run_after == after(seconds=60)
    ended = queue.finish(a.job.id, a.fence, Stopped(), after(seconds=62))
    assert ended.status is JobStatus.CANCELLED
    assert take(queue, 63).job.id == waiting.id


def test_what_gave_way_again_and_again_does_so_no_more_for_what_the_loop_wants(jobs: Jobs, queue: Queue) -> None:
    """A site that is changed all the time is healed all the time: it would keep its backup from ever being tried."""

    def disturbed(at: int, job_type: str, **values: Any) -> bool:
        """Whether a drill has to give way; what disturbed it ends."""
        jobs.enqueue(drill("drill:n", "site:a", dedupe_key="drill:a"), after(seconds=at))
        held = take(queue, at)
        other = jobs.enqueue(new_job("site:a", job_type=job_type, **values), after(seconds=at + 1))
        queue.claim("w", after(seconds=at + 2), {"health-check"})
        gives_way = queue.heartbeat(held.job.id, held.fence, after(seconds=at + 3))
        queue.finish(held.job.id, held.fence, Stopped() if gives_way else Succeeded(), after(seconds=at + 4))
        jobs.enqueue(drill("drill:n", "site:a", intent={"clear": True}), after(seconds=at + 4))
        for _ in range(2):
            ended = take(queue, at + 5)
            queue.finish(ended.job.id, ended.fence, Succeeded(), after(seconds=at + 5))
        assert jobs.get(other.id).status is JobStatus.SUCCEEDED
        return gives_way

    assert [disturbed(at, "reconcile") for at in (0, 10, 20, 30)] == [True, True, True, False]
    assert [disturbed(at, "reconcile") for at in (40, 50, 60)] == [True, True, True], "it was tried"
    assert disturbed(70, "deploy"), "somebody asked for that"
    assert disturbed(80, "reconcile", intent={"deliberate": True}), "and for that"
    assert not disturbed(90, "reconcile", intent={"deliberate": False})


def test_what_gave_way_before_is_found_by_an_index_and_whatever_is_asked_for_meanwhile(
    engine: Engine, jobs: Jobs, queue: Queue
) -> None:
    """Claims go one by one, and there may be hundreds of thousands of jobs."""
    said: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *told: said.append(told[2:4]))
    own = {"dedupe_key": "drill:a", "environment_id": uuid4()}
    for at in (0, 10, 20, 30):
        jobs.enqueue(drill("site:a", **own), after(seconds=at))
        held = take(queue, at)
        jobs.enqueue(drill("site:a", **own), after(seconds=at + 1))
        other = jobs.enqueue(new_job("site:a"), after(seconds=at + 1))
        queue.claim("w", after(seconds=at + 2), {"none"})
        gives_way = queue.heartbeat(held.job.id, held.fence, after(seconds=at + 3))
        assert gives_way is (at < 30)
        queue.finish(held.job.id, held.fence, Stopped(), after(seconds=at + 4))
        assert take(queue, at + 5).job.id == other.id
        queue.finish(other.id, jobs.get(other.id).fence or 0, Succeeded(), after(seconds=at + 5))
        (waiting,) = jobs.page(JobFilter(statuses=frozenset({JobStatus.QUEUED}))).jobs
        jobs.cancel(waiting.id, after(seconds=at + 6))
    former, given = next(one for one in said if "dedupe_key = " in one[0] and "DESC" in one[0])
    if engine.dialect.name == "sqlite":  # the other weighs how much there is
        with reading(engine) as connection:
            plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {former}", given)]
        assert "environment_id=?" in plan[0], plan


def test_what_gives_way_has_no_place_in_line_before_others(jobs: Jobs, queue: Queue) -> None:
    waits = jobs.enqueue(drill("drill:n", "site:a"), NOON)
    mine = jobs.enqueue(new_job("site:a"), after(seconds=1))
    assert queue.blocker(mine) is None
    # Also where nobody takes such jobs now: the one worker that does is at another one for half an hour.
    claimed = queue.claim("w", after(seconds=2), {"reconcile"})
    assert claimed is not None
    assert claimed.job.id == mine.id
    assert queue.claim("w", after(seconds=2)) is None
    queue.finish(mine.id, claimed.fence, Succeeded(), after(seconds=3))
    assert take(queue, 3).job.id == waits.id


def test_what_a_drill_left_is_cleared_away_before_any_drill_that_waits(jobs: Jobs, queue: Queue) -> None:
    """Else the customers' data of one site lies there for as long as a fleet's drills take."""
    waiting = [jobs.enqueue(drill("drill:n", f"site:{name}"), NOON) for name in "ab"]
    clears = jobs.enqueue(drill("drill:n", "site:c", intent={"clear": True}), after(seconds=1))
    claimed = take(queue, 2)
    assert claimed.job.id == clears.id
    queue.finish(clears.id, claimed.fence, Succeeded(), after(seconds=3))
    assert take(queue, 3).job.id in {one.id for one in waiting}
