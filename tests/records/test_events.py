"""What happened to a job is told event by event, with the rows that it is about, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from reconciler.records.events import MOST, MOST_PROGRESS, EventKind, Events
from reconciler.records.jobs import Jobs
from reconciler.records.outcomes import Failed, Stopped, Succeeded
from reconciler.records.queue import Queue
from tests.records.examples import NOON, after, new_job


def told(events: Events, job_id: object) -> list[str]:
    return [event.kind.value for event in events.after(job_id)]  # type: ignore[arg-type]


def test_a_jobs_whole_story(engine: Engine, jobs: Jobs, queue: Queue) -> None:
    events = Events(engine)
    job = jobs.enqueue(new_job("site:a", declared=True), NOON)
    jobs.mark_committed(job.id, "abc", after(seconds=1))
    jobs.mark_committed(job.id, "abc", after(seconds=1))
    claimed = queue.claim("worker-1", after(seconds=2))
    assert claimed is not None
    events.tell(job.id, EventKind.STEP, {"action": "clone"}, after(seconds=3))
    queue.finish(job.id, claimed.fence, Failed("ANSIBLE_HOST_FAILED", "no luck"), after(seconds=4))
    again = queue.claim("worker-2", after(minutes=2))
    assert again is not None
    queue.finish(job.id, again.fence, Succeeded(), after(minutes=3))

    story = events.after(job.id)
    assert [event.number for event in story] == list(range(1, 8))
    assert [event.kind.value for event in story] == [
        "accepted",
        "committed",
        "started",
        "step",
        "retry-scheduled",
        "started",
        "finished",
    ]
    assert [event.at for event in story] == sorted(event.at for event in story)
    assert story[1].data == {"revision": "abc"}
    assert story[4].data["run_after"] == after(seconds=64).isoformat()
    assert story[5].data == {"attempt": 2, "worker": "worker-2"}
    assert story[6].data == {"status": "succeeded", "error_code": None}
    assert [event.number for event in events.after(job.id, 5)] == [6, 7]
    assert [event.number for event in events.after(job.id, 2, limit=2)] == [3, 4]


def test_a_cancelled_jobs_story(engine: Engine, jobs: Jobs, queue: Queue) -> None:
    events = Events(engine)
    queued, running = jobs.enqueue(new_job(), after(seconds=1)), jobs.enqueue(new_job(), NOON)
    claimed = queue.claim("w", after(seconds=2))
    assert claimed is not None
    for job in (queued, running, queued, running):
        jobs.cancel(job.id, after(seconds=3))
    queue.finish(running.id, claimed.fence, Stopped(), after(seconds=4))
    assert told(events, queued.id) == ["accepted", "finished"]
    assert told(events, running.id) == ["accepted", "started", "cancel-requested", "finished"]
    assert events.after(running.id)[-1].data["status"] == "cancelled"


def test_a_worker_that_stops_or_vanishes_gives_the_job_back(engine: Engine, jobs: Jobs, queue: Queue) -> None:
    events = Events(engine)
    job = jobs.enqueue(new_job(), NOON)
    first = queue.claim("w", NOON)
    assert first is not None
    queue.release(job.id, first.fence, after(seconds=1))
    assert queue.claim("w", after(seconds=2))
    queue.expire(after(hours=1))
    assert told(events, job.id) == ["accepted", "started", "queued-again", "started", "queued-again"]


def test_they_go_with_the_job(engine: Engine, jobs: Jobs, queue: Queue) -> None:
    events = Events(engine)
    refused = jobs.enqueue(new_job(declared=True), NOON)
    jobs.discard(refused.id)
    old = jobs.enqueue(new_job(), NOON)
    jobs.cancel(old.id, NOON)
    assert jobs.prune(after(days=1)) == 1
    assert [told(events, job.id) for job in (refused, old)] == [[], []]


def test_looks_have_no_story_and_an_unknown_job_has_none(engine: Engine, jobs: Jobs) -> None:
    events = Events(engine)
    look = jobs.enqueue(new_job(ephemeral=True), NOON)
    events.tell(look.id, EventKind.STEP, {}, NOON)
    events.tell(uuid4(), EventKind.STEP, {}, NOON)
    assert told(events, look.id) == []


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_progress_is_bounded_and_leaves_room_for_the_end(engine: Engine, jobs: Jobs) -> None:
    events = Events(engine)
    job = jobs.enqueue(new_job(), NOON)
    for _ in range(MOST_PROGRESS + 5):
        events.tell(job.id, EventKind.TASK, {}, NOON)
    jobs.cancel(job.id, NOON)
    assert len(events.after(job.id, limit=2 * MOST)) == MOST_PROGRESS + 1
    assert events.after(job.id, MOST_PROGRESS)[-1].kind is EventKind.FINISHED


def test_writers_at_once_lose_none_and_number_each_once(engine: Engine, jobs: Jobs) -> None:
    events = Events(engine)
    job = jobs.enqueue(new_job(), NOON)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: events.tell(job.id, EventKind.TASK, {"n": n}, NOON), range(40)))
    story = events.after(job.id)
    assert [event.number for event in story] == list(range(1, 42))
    assert {event.data["n"] for event in story[1:]} == set(range(40))
