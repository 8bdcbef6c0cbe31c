"""SIGKILL between the request and its job: after a restart there is one job, one commit, one site, or nothing."""

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from reconciler.core.jobs import MAX_ATTEMPTS
from reconciler.records.jobs import Job
from reconciler.store.locks import writer_lock
from tests.controlplane import ControlPlane, MakeControlPlane, closed_port, node_document, run_git, until
from tests.proof import count


@pytest.fixture(scope="module")
def plane(shared_control_plane: MakeControlPlane) -> ControlPlane:
    """A node that refuses connections: each job's first attempt ends as soon as it may run."""
    return shared_control_plane({"nodes/web-1.yaml": node_document(port=closed_port())})


class Request(threading.Thread):
    """A POST whose control plane may vanish meanwhile."""

    def __init__(self, plane: ControlPlane, slug: str) -> None:
        super().__init__()
        self.plane, self.slug = plane, slug
        self.answer: httpx.Response | None = None
        self.error: httpx.TransportError | None = None

    def run(self) -> None:
        try:
            with self.plane.client() as client:
                self.answer = client.post("/api/sites", json={"name": f"The {self.slug}", "slug": self.slug})
        except httpx.TransportError as error:
            self.error = error

    def wait_for_row(self) -> None:
        """Until its job is there; whoever was answered before, or not at all, says so."""
        until(lambda: bool(jobs_for(self.plane, self.slug)) or not self.is_alive(), "the row", told=self.plane.log)
        assert jobs_for(self.plane, self.slug), (self.answer and self.answer.text, self.error, self.plane.log())


def jobs_for(plane: ControlPlane, slug: str) -> list[Job]:
    with plane.opened() as home:
        return [job for job in home.records.jobs.page().jobs if (job.intent or {}).get("slug") == slug]


def tried(plane: ControlPlane, job_id: object, most: int = 1) -> bool:
    """A worker's attempt failed as it must on this node, and no more than ``most`` attempts were begun."""
    job: dict[str, Any] = plane.job(str(job_id))
    return 1 <= job["attempt_count"] <= most and job["error_code"] == "ANSIBLE_HOST_UNREACHABLE"


def assert_done_once(plane: ControlPlane, slug: str, attempts: int = 1) -> Job:
    """One job, declared by one commit, with one site, and a worker tried it."""
    until(lambda: all(job.revision for job in jobs_for(plane, slug)), f"{slug} to be declared", told=plane.log)
    (job,) = jobs_for(plane, slug)
    assert plane.declaring_commits()[str(job.id)] == [job.revision]
    assert [site["slug"] for site in plane.http.get("/api/sites").json()].count(slug) == 1
    until(lambda: tried(plane, job.id, attempts), f"the job of {slug} to be tried", told=plane.log)
    return job


@contextlib.contextmanager
def database_held(plane: ControlPlane) -> Iterator[None]:
    """Nobody else may write to the database."""
    with contextlib.closing(sqlite3.connect(plane.home / "trueup.db", timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_killed_between_row_and_commit(plane: ControlPlane) -> None:
    with writer_lock(plane.store):
        request = Request(plane, "before")
        request.start()
        request.wait_for_row()
        assert [job.revision for job in jobs_for(plane, "before")] == [None]
        plane.kill()
    request.join()
    assert request.answer is None
    assert plane.declaring_commits().keys().isdisjoint(str(job.id) for job in jobs_for(plane, "before"))

    plane.restart()

    assert_done_once(plane, "before")


def test_killed_between_commit_and_mark(plane: ControlPlane) -> None:
    head = plane.git("rev-parse", "main")
    with contextlib.ExitStack() as database:
        with writer_lock(plane.store):
            request = Request(plane, "between")
            request.start()
            request.wait_for_row()
            database.enter_context(database_held(plane))
        until(lambda: plane.git("rev-parse", "main") != head, "the commit")
        plane.kill()
    request.join()
    assert request.answer is None
    (job,) = jobs_for(plane, "between")
    assert job.revision is None

    plane.restart()

    assert assert_done_once(plane, "between").revision == plane.git("rev-parse", "main")


@pytest.mark.long
def test_killed_between_commit_and_mark_and_the_site_was_removed_since(plane: ControlPlane) -> None:
    head = plane.git("rev-parse", "main")
    with contextlib.ExitStack() as database:
        with writer_lock(plane.store):
            request = Request(plane, "gone")
            request.start()
            request.wait_for_row()
            database.enter_context(database_held(plane))
        until(lambda: plane.git("rev-parse", "main") != head, "the commit")
        plane.kill()
    request.join()
    removed = dict.fromkeys(("sites/gone/site.yaml", "sites/gone/environments/production.yaml"))
    plane.clone.push(removed, "Remove it again")

    plane.restart()

    (job,) = jobs_for(plane, "gone")
    until(lambda: plane.job(job.id)["status"] == "failed", "the job to find nothing to do", told=plane.log)
    assert plane.job(job.id)["error_code"] == "TARGET_MISSING"
    assert len(plane.declaring_commits()[str(job.id)]) == 1


@pytest.mark.long
def test_somebody_took_the_slug_between_row_and_commit(plane: ControlPlane) -> None:
    with writer_lock(plane.store):
        request = Request(plane, "taken")
        request.start()
        request.wait_for_row()
        plane.kill()
    request.join()
    plane.clone.push({"sites/taken/site.yaml": "apiVersion: trueup/v1\nkind: Site\n"})

    plane.restart()

    (job,) = jobs_for(plane, "taken")
    until(lambda: plane.job(job.id)["status"] == "failed", "the job to be refused", told=plane.log)
    assert plane.job(job.id)["error_code"] == "JOB_CONFLICT"
    assert str(job.id) not in plane.declaring_commits()


def test_killed_anywhere(plane: ControlPlane) -> None:
    dice = random.Random(11)
    slugs = [f"kill-{number}" for number in range(count(short=1, full=5))]
    requests = []
    for slug in slugs:
        requests.append(Request(plane, slug))
        requests[-1].start()
        time.sleep(dice.uniform(0.0, 0.25))
        plane.kill()
        requests[-1].join()
        plane.restart()

    for request in requests:
        if request.answer is not None:
            assert request.answer.status_code == 202
        if request.answer is not None or jobs_for(plane, request.slug):
            # Only here may a kill fall into an attempt, which then counts: at most all of them.
            job = assert_done_once(plane, request.slug, attempts=MAX_ATTEMPTS)
            assert request.answer is None or request.answer.json()["job_id"] == str(job.id)
    made = [site["slug"] for site in plane.http.get("/api/sites").json()]
    assert sorted(set(made)) == sorted(made)
    assert {slug for slug in slugs if jobs_for(plane, slug)} == set(made) & set(slugs)
    run_git(plane.store, "fsck", "--strict")


def test_a_busy_environment_whose_worker_died_after_the_end(plane: ControlPlane) -> None:
    """The job's end is stored, what it means for its environment isn't yet."""
    plane.create_site("late")
    environment = plane.environment_of("late")
    (job,) = jobs_for(plane, "late")
    until(lambda: tried(plane, job.id), "its first attempt")
    assert environment["status"] == "deploying"

    plane.kill()
    with plane.opened() as home:
        home.records.jobs.cancel(job.id, job.created_at)
    plane.restart()

    until(lambda: plane.environment_of("late")["status"] == "failed", "the environment to be told", told=plane.log)
