"""A key and the job that it stands for are stored together, once, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from reconciler.core.errors import Conflict, IdempotencyKeyInUse, IdempotencyKeyReused
from reconciler.records.idempotency import Answered, IdempotencyKeys, Key
from reconciler.records.jobs import Job, Jobs
from tests.records.examples import NOON, after, new_job

KEY = Key("admin@example.com", "one", "a" * 64)
OTHER = Key("admin@example.com", "one", "b" * 64)


def test_a_key_leads_to_its_job_for_a_day(engine: Engine, jobs: Jobs) -> None:
    keys = IdempotencyKeys(engine)
    assert keys.find(KEY, NOON) is None
    job = jobs.enqueue(new_job(key=KEY), NOON)
    assert keys.find(KEY, after(hours=23)) == Answered(job.id, None)
    assert keys.find(Key("somebody else", "one", "a" * 64), NOON) is None
    with pytest.raises(IdempotencyKeyReused):
        keys.find(OTHER, NOON)
    assert keys.find(KEY, after(hours=25)) is None
    assert jobs.enqueue(new_job(key=OTHER), after(hours=25)).id != job.id
    assert keys.prune(after(hours=48)) == 0
    assert keys.prune(after(hours=49)) == 1


def test_a_declared_job_is_no_answer_before_its_commit(engine: Engine, jobs: Jobs) -> None:
    keys = IdempotencyKeys(engine)
    job = jobs.enqueue(new_job(key=KEY, declared=True), NOON)
    with pytest.raises(IdempotencyKeyInUse):
        keys.find(KEY, NOON)
    jobs.mark_committed(job.id, "abc", NOON)
    assert keys.find(KEY, NOON) == Answered(job.id, None)


def test_a_refused_declaration_takes_its_key_along(engine: Engine, jobs: Jobs) -> None:
    job = jobs.enqueue(new_job(key=KEY, declared=True), NOON)
    jobs.discard(job.id)
    assert IdempotencyKeys(engine).find(KEY, NOON) is None


def test_a_refused_job_leaves_no_key(engine: Engine, jobs: Jobs) -> None:
    with pytest.raises(ValueError, match="twice"):
        jobs.enqueue(new_job("site:a", "site:a", key=KEY), NOON)
    ended = jobs.enqueue(new_job(), NOON)
    jobs.reject(ended.id, "JOB_CONFLICT", "no", NOON)
    with pytest.raises(Conflict):
        jobs.cancel(ended.id, NOON, KEY)
    assert IdempotencyKeys(engine).find(KEY, NOON) is None


def test_a_job_that_stands_for_another_keeps_its_key(engine: Engine, jobs: Jobs) -> None:
    first = jobs.enqueue(new_job(dedupe_key="d"), NOON)
    assert jobs.enqueue(new_job(dedupe_key="d", key=KEY), NOON).id == first.id
    assert IdempotencyKeys(engine).find(KEY, NOON) == Answered(first.id, None)


def test_an_answer_that_is_no_job(engine: Engine) -> None:
    keys = IdempotencyKeys(engine)
    keys.remember(KEY, {"upload_id": "x"}, NOON)
    assert keys.find(KEY, NOON) == Answered(None, {"upload_id": "x"})
    with pytest.raises(IdempotencyKeyInUse):
        keys.remember(KEY, {"upload_id": "y"}, NOON)


def test_of_many_at_once_one_makes_a_job(engine: Engine, jobs: Jobs) -> None:
    def attempt(_: int) -> Job | None:
        try:
            return jobs.enqueue(new_job(key=KEY), NOON)
        except IdempotencyKeyInUse:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [job for job in pool.map(attempt, range(16)) if job]
    assert len(made) == 1
    assert [job.id for job in jobs.page().jobs] == [made[0].id]
