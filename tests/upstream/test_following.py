"""Both in step: what is pushed there comes here, what is committed here goes there, and what is diverged is joined."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from reconciler.core.jobs import JobStatus
from reconciler.core.status import EnvironmentStatus
from reconciler.operations.declaring import Actor, Terms
from reconciler.operations.preconditions import Precondition
from reconciler.store import replay
from reconciler.store.repository import Author, Repository
from reconciler.store.standing import State
from tests.controlplane import Clone, node_document, run_git, site_documents

from .conftest import ADA, ENVIRONMENT, Followed, Make, followed_at, fsck


def test_an_empty_forge_is_filled(make: Make) -> None:
    followed = make()
    assert followed.following.look().state is State.IN_STEP
    assert followed.both() == followed.home.state.fleet().revision


def test_a_fresh_home_takes_over_what_is_there(followed: Followed, tmp_path: Path) -> None:
    head = followed.both()
    home = tmp_path / "other"
    home.mkdir()
    Repository.init(home / "store.git", {"platform.yaml": b"kind: Platform\n"}, Author("T", "t@example.com")).close()
    other = followed_at(home, followed.forge)
    try:
        assert other.following.look().state is State.IN_STEP
        assert other.both() == head
        assert other.environment() == followed.environment()
    finally:
        other.home.close()


def test_what_is_pushed_there_comes_here(followed: Followed, person: Clone) -> None:
    pushed = person.replace(ENVIRONMENT, "fastcgi: true", "fastcgi: false")
    assert followed.following.look().state is State.IN_STEP
    assert followed.both() == pushed
    assert not followed.fleet.environments_by_key["shop/production"].manifest.spec.cache.fastcgi
    fsck(followed.store)


def test_what_is_committed_here_goes_there(followed: Followed, person: Clone) -> None:
    job = followed.set_cache(redis=False)
    assert followed.following.is_behind()
    assert followed.following.look().state is State.IN_STEP
    assert not followed.following.is_behind()
    assert followed.both() == followed.job(job).revision
    assert "redis: false" in person.read(ENVIRONMENT)


def test_an_intent_is_evaluated_anew_on_what_was_pushed(followed: Followed, person: Clone) -> None:
    job = followed.set_cache(redis=False)
    before = followed.job(job).revision
    pushed = person.replace(ENVIRONMENT, "fastcgi: true", "fastcgi: false")
    assert followed.following.look().state is State.IN_STEP
    head = followed.both()
    assert head not in {before, pushed}
    assert followed.remote("log", "-1", "--format=%P %an %ae", "main") == f"{pushed} Ada Lovelace ada@example.com"
    assert followed.job(job).revision == head
    assert followed.job(job).status is JobStatus.QUEUED
    assert followed.home.state.repository.jobs_in_history([str(job)]) == {str(job): head}
    assert "fastcgi: false" in followed.document()
    assert "redis: false" in followed.document()
    assert followed.local("for-each-ref", "refs/trueup/dropped") == ""
    fsck(followed.store)


def test_commits_without_a_job_are_merged_by_path_and_keep_who_made_them(
    followed: Followed, person: Clone, tmp_path: Path
) -> None:
    operator = Clone(followed.store, tmp_path / "operator")
    operator.push({"notes with spaces.txt": "here\n", ".hidden/x.yml": "a: 1\n"}, "Note")
    operator.replace(ENVIRONMENT, "redis: true", "redis: false")
    operator.replace(ENVIRONMENT, "apiVersion", "# Looked at\napiVersion")
    pushed = person.push({**site_documents("blog"), "README.txt": "there\n"})
    assert followed.following.look().state is State.IN_STEP
    followed.both()
    log = followed.remote("log", "--reverse", "--format=%an|%s", f"{pushed}..main").splitlines()
    assert log == ["Grace Hopper|Note", *["Grace Hopper|Change by hand"] * 2]
    assert followed.remote("show", "main:notes with spaces.txt") == "here"
    assert followed.remote("show", "main:.hidden/x.yml") == "a: 1"
    assert "redis: false" in followed.document()
    assert set(followed.fleet.environments_by_key) == {"shop/production", "blog/production"}


def test_a_name_with_a_line_separator_in_it(followed: Followed, person: Clone, tmp_path: Path) -> None:
    operator = Clone(followed.store, tmp_path / "operator")
    run_git(operator.path, "config", "user.name", "Grace\u2028Hop\x85per")
    operator.push({"a.txt": "here\n"})
    person.push({"b.txt": "there\n"})
    assert followed.following.look().state is State.IN_STEP
    followed.both()
    assert followed.remote("log", "-1", "--format=%an", "main") == "Grace\u2028Hop\x85per"


def test_many_commits_of_both_kinds_stay_in_their_order(
    followed: Followed, person: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_LARGEST_BATCH", 3)
    operator = Clone(followed.store, tmp_path / "operator")
    jobs = []
    for number in range(3):
        jobs += [followed.set_cache(redis=flag) for flag in (False, True, False, True)]
        operator.push({f"{number}.txt": "here\n"}, f"Note {number}")
    before = followed.local("log", "--reverse", "--format=%s %at %(trailers)", "main~15..main")
    pushed = person.push({"README.txt": "there\n"})
    followed.following.look()
    head = followed.both()
    assert followed.remote("log", "--reverse", "--format=%s %at %(trailers)", f"{pushed}..main") == before
    # Each on the one before, with all that was there.
    assert followed.remote("rev-list", "--merges", "main") == ""
    assert followed.remote("ls-tree", "--name-only", head).split() == [
        *("0.txt", "1.txt", "2.txt", "README.txt"),
        *("nodes", "sites"),
    ]
    known = followed.home.state.repository.jobs_in_history(map(str, jobs))
    assert {str(job): followed.job(job).revision for job in jobs} == known


def test_what_upstream_leaves_no_room_for_is_kept_and_told(followed: Followed, person: Clone, tmp_path: Path) -> None:
    operator = Clone(followed.store, tmp_path / "operator")
    theirs = operator.replace(ENVIRONMENT, "redis: true", "redis: false # here")
    person.replace(ENVIRONMENT, "redis: true", "redis: true # there")
    job = followed.set_cache(fastcgi=False)
    assert followed.following.look().state is State.IN_STEP
    followed.both()
    assert "redis: true # there" in followed.document()
    assert "fastcgi: false" in followed.document()
    (dropped,) = followed.following.upstream.dropped()
    assert (dropped.id, dropped.job, dropped.subject) == (theirs, None, "Change by hand")
    assert ENVIRONMENT in dropped.reason
    assert "redis: false # here" in followed.local("show", f"refs/trueup/dropped/{theirs}:{ENVIRONMENT}")
    assert followed.job(job).status is JobStatus.QUEUED
    fsck(followed.store)
    assert followed.following.upstream.forget(theirs[:8]) == theirs
    assert followed.following.upstream.dropped() == []


def test_a_job_whose_commit_fits_no_more_ends_and_says_so(followed: Followed, person: Clone) -> None:
    job = followed.home.operations.create_site("Mine", "blog", ADA)
    commit = followed.job(job).revision
    environment = followed.environment("blog/production")
    person.push(site_documents("blog"))
    assert followed.following.look().state is State.IN_STEP
    followed.both()
    ended = followed.job(job)
    assert (ended.status, ended.error_code) == (JobStatus.FAILED, "UPSTREAM_CONFLICT")
    assert str(commit)[:12] in str(ended.error_message)
    assert "blog" in str(ended.error_message)
    assert [(one.id, one.job) for one in followed.following.upstream.dropped()] == [(commit, str(job))]
    # What never came to be has no status; what was pushed is what is there.
    assert followed.home.records.statuses.get(environment) is None
    assert "The blog" in followed.document("sites/blog/site.yaml")


def test_a_running_job_whose_commit_fits_no_more_is_stopped(followed: Followed, person: Clone) -> None:
    from reconciler.home import clock
    from reconciler.records.outcomes import Stopped
    from reconciler.records.queue import Queue

    job = followed.set_cache(fastcgi=False)
    queue = Queue(followed.home.records.engine)
    claimed = queue.claim("worker", clock())
    assert claimed is not None
    assert claimed.job.id == job
    person.push(dict.fromkeys(site_documents("shop")))
    assert followed.following.look().state is State.IN_STEP
    assert queue.heartbeat(job, claimed.fence, clock())
    ended = queue.finish(job, claimed.fence, Stopped(), clock())
    assert (ended.status, ended.error_code) == (JobStatus.FAILED, "UPSTREAM_CONFLICT")
    assert ended.error_message


def test_one_that_had_made_its_environment_busy_frees_it(followed: Followed, person: Clone) -> None:
    environment = followed.environment()
    source = "https://git.example.com/shop.git#" + "a" * 40
    job = followed.home.operations.deploy(environment, "git", source, ADA, revision="a" * 40)
    row = followed.home.records.statuses.get(environment)
    assert row is not None
    assert row.status == EnvironmentStatus.DEPLOYING
    person.replace(ENVIRONMENT, "spec:\n", "spec:\n  reconcile:\n    mode: paused\n    reason: hands off\n")
    followed.following.look()
    assert followed.job(job).error_code == "UPSTREAM_CONFLICT"
    row = followed.home.records.statuses.get(environment)
    assert row is not None
    assert row.status == EnvironmentStatus.ACTIVE


def test_a_busy_environment_is_no_reason_to_leave_its_own_job_out(followed: Followed, person: Clone) -> None:
    environment = followed.environment()
    source = "https://git.example.com/shop.git#" + "a" * 40
    job = followed.home.operations.deploy(environment, "git", source, ADA, revision="a" * 40)
    person.push(site_documents("blog"))
    followed.following.look()
    assert followed.job(job).status is JobStatus.QUEUED
    assert followed.job(job).revision == followed.both()


def test_a_site_stays_on_the_node_that_was_chosen(followed: Followed, person: Clone) -> None:
    job = followed.home.operations.create_site("Mine", "blog", ADA)
    # On what was pushed, the second node would be chosen: it has fewer environments.
    person.push({"nodes/a-2.yaml": node_document("192.0.2.9")})
    followed.following.look()
    followed.both()
    assert followed.job(job).status is JobStatus.QUEUED
    assert followed.fleet.environments_by_key["blog/production"].manifest.spec.node == "web-1"


def _if_match(followed: Followed) -> Actor:
    current = followed.home.state.current()
    history = current.history(ENVIRONMENT)
    assert history is not None
    environment = followed.environment()
    row = current.status_row(environment)
    version = history.commits + (row.version if row else 0)
    return Actor(
        ADA.name, ADA.email, terms=Terms(precondition=Precondition("environment", environment, frozenset({version})))
    )


def test_a_condition_holds_against_what_was_pushed(followed: Followed, person: Clone) -> None:
    one = followed.home.operations.set_cache(followed.environment(), None, False, _if_match(followed))
    person.push(site_documents("blog"))
    followed.following.look()
    assert followed.job(one).status is JobStatus.QUEUED
    other = followed.home.operations.set_cache(followed.environment(), False, None, _if_match(followed))
    person.replace(ENVIRONMENT, "kind: Environment", "kind: Environment\nmetadata:\n  name: Main")
    followed.following.look()
    followed.both()
    assert followed.job(other).error_code == "UPSTREAM_CONFLICT"
    assert "fastcgi: true" in followed.document()
    assert "redis: false" in followed.document()


def test_a_job_whose_row_is_gone_is_merged_by_path(followed: Followed, person: Clone) -> None:
    followed.set_cache(redis=False)
    job = followed.set_cache(fastcgi=False)
    _forget(followed, job)
    person.push({"README.txt": "there\n"})
    followed.following.look()
    followed.both()
    assert "fastcgi: false" in followed.document()
    assert list(followed.home.state.repository.jobs_in_history([str(job)])) == [str(job)]


def _forget(followed: Followed, job: UUID) -> None:
    from sqlalchemy import delete

    from reconciler.records.database import write
    from reconciler.records.tables import job_events, jobs

    for table, column in ((job_events, job_events.c.job_id), (jobs, jobs.c.id)):
        write(
            followed.home.records.engine,
            lambda connection, t=table, c=column: connection.execute(delete(t).where(c == job)),
        )


def test_a_trailer_that_a_person_copied_declares_nothing(followed: Followed, person: Clone, tmp_path: Path) -> None:
    job = followed.set_cache(redis=False)
    followed.following.look()
    operator = Clone(followed.store, tmp_path / "operator")
    operator.push({"a.txt": "a\n"}, f"Note\n\nTrueup-Job: {job}")
    person.push({"b.txt": "b\n"})
    followed.following.look()
    followed.both()
    assert followed.remote("show", "main:a.txt") == "a"
    assert followed.job(job).revision != followed.local("rev-parse", "main")


def test_a_merge_that_was_pushed_here_keeps_what_it_decided(followed: Followed, person: Clone, tmp_path: Path) -> None:
    operator = Clone(followed.store, tmp_path / "operator")
    run_git(operator.path, "checkout", "-q", "-b", "topic")
    (operator.path / "a.txt").write_text("topic\n")
    run_git(operator.path, "add", "-A")
    run_git(operator.path, "commit", "-q", "-m", "Topic")
    run_git(operator.path, "checkout", "-q", "-")
    run_git(operator.path, "merge", "-q", "--no-ff", "--no-commit", "topic")
    (operator.path / "decided.txt").write_text("by the merge\n")
    run_git(operator.path, "add", "-A")
    run_git(operator.path, "commit", "-q", "-m", "Merge")
    run_git(operator.path, "push", "-q", "origin", "HEAD:main")
    person.push({"b.txt": "b\n"})
    followed.following.look()
    followed.both()
    assert followed.remote("ls-tree", "--name-only", "main").split() == [
        "a.txt",
        "b.txt",
        "decided.txt",
        "nodes",
        "sites",
    ]
    assert followed.following.upstream.dropped() == []


def test_two_good_changes_that_make_no_document_together_are_not_joined(
    followed: Followed, person: Clone, tmp_path: Path
) -> None:
    operator = Clone(followed.store, tmp_path / "operator")
    operator.replace(ENVIRONMENT, "apiVersion: trueup/v1\n", "metadata: {name: Here}\napiVersion: trueup/v1\n")
    text = person.read(ENVIRONMENT)
    person.push({ENVIRONMENT: text + "metadata: {name: There}\n"})
    followed.following.look()
    followed.both()
    assert followed.fleet.stalled == ()
    assert "There" in followed.document()
    (dropped,) = followed.following.upstream.dropped()
    assert "makes no document" in dropped.reason


def test_a_document_that_does_not_parse_stalls_and_deletes_nothing(followed: Followed, person: Clone) -> None:
    environment = followed.environment()
    person.push(dict.fromkeys(("sites/shop/site.yaml", ENVIRONMENT, "nodes/web-1.yaml"), "{ no: [document"))
    assert followed.following.look().state is State.IN_STEP
    assert environment in followed.fleet.environments
    assert len(followed.fleet.stalled) == 3


@pytest.mark.parametrize("branch", ["live", "team/live"])
def test_another_branch_is_followed(make: Make, branch: str) -> None:
    followed = make()
    other = followed_at(followed.home.settings.home, followed.forge, upstream_branch=branch)
    try:
        assert other.following.look().state is State.IN_STEP
        assert other.remote("for-each-ref", "--format=%(refname)") == f"refs/heads/{branch}"
    finally:
        other.home.close()
