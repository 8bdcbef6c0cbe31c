"""Documents in a folder of a larger repository: all holds that holds at its top, and nothing beside it is touched."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from reconciler.core.jobs import JobStatus
from reconciler.home import create
from reconciler.operations.confirming import is_confirmed
from reconciler.settings import Settings
from reconciler.store.standing import State
from tests.controlplane import AUTHOR, Clone, ControlPlane, MakeControlPlane, run_git, site_documents, until
from tests.proof import count

from .conftest import ADA, ENVIRONMENT, Followed, followed_at, fsck
from .larger import DOCUMENTS, FOLDER, HERE, below, follow, followed, forge, outside, person
from .test_faults import PUSHER
from .test_hooks import make_key, tell
from .test_serving import ready

__all__ = ["follow", "followed", "forge", "person"]

ROUNDS = count(short=10, full=30)

# Both directions


def test_a_fresh_home_takes_over_what_the_folder_has(followed: Followed, person: Clone) -> None:
    assert followed.both() == run_git(person.path, "rev-parse", "HEAD"), "nothing was pushed"
    assert set(followed.fleet.environments_by_key) == {"shop/production"}
    assert followed.fleet.stalled == (), "what is beside the folder is no document"
    snapshot = followed.home.state.repository.read()
    assert set(snapshot.documents) == set(DOCUMENTS)
    assert followed.home.state.repository.content(ENVIRONMENT, "main") == DOCUMENTS[ENVIRONMENT].encode()
    assert followed.home.state.repository.content("README.md", "main") is None


def test_what_is_pushed_there_comes_here(followed: Followed, person: Clone) -> None:
    pushed = person.replace(HERE, "fastcgi: true", "fastcgi: false")
    assert followed.following.look().state is State.IN_STEP
    assert followed.both() == pushed
    assert not followed.fleet.environments_by_key["shop/production"].manifest.spec.cache.fastcgi
    assert pushed in [row.commit for row in followed.home.records.announcements.open()]
    fsck(followed.store)


def test_what_is_committed_here_goes_there_and_touches_nothing_else(followed: Followed, person: Clone) -> None:
    before = outside(followed.forge)
    jobs = [
        followed.set_cache(redis=False),
        followed.home.operations.create_site("Mine", "blog", ADA),
        followed.set_cache(redis=False),  # changes nothing, and is a commit nevertheless
    ]
    assert followed.following.look().state is State.IN_STEP
    head = followed.both()
    assert [followed.job(job).revision for job in jobs][-1] == head
    changed = followed.remote("log", "--name-only", "--format=", f"{head}~3..{head}").split()
    assert changed == [f"{FOLDER}/sites/blog/environments/production.yaml", f"{FOLDER}/sites/blog/site.yaml", HERE]
    assert outside(followed.forge) == before
    assert "redis: false" in person.read(HERE)
    fsck(followed.forge)


def test_commits_beside_the_folder_come_along_and_change_nothing(followed: Followed, person: Clone) -> None:
    history = dict(followed.home.state.repository.history())
    documents = followed.home.state.repository.read().documents
    pushed = person.push({"app/main.c": "int main(void) { return 1; }\n", "nodes/web-1.yaml": "no: node\n"})
    assert followed.following.look().state is State.IN_STEP
    assert followed.both() == pushed
    after = followed.home.state.repository.read()
    assert all(after.documents[path] is document for path, document in documents.items())
    assert dict(followed.home.state.repository.history()) == history
    told = [row.commit for row in followed.home.records.announcements.open()]
    assert pushed not in told, "no forge is told anything of it"
    # On top of it ours.
    followed.set_cache(redis=False)
    followed.following.look()
    assert followed.remote("rev-parse", "main~1") == pushed


def test_an_intent_is_evaluated_anew_on_what_was_pushed(followed: Followed, person: Clone) -> None:
    job = followed.set_cache(redis=False)
    first = followed.job(job).revision
    person.push({"app/main.c": "changed\n"})
    pushed = person.replace(HERE, "fastcgi: true", "fastcgi: false")
    before = outside(followed.forge)
    assert followed.following.look().state is State.IN_STEP
    head = followed.both()
    assert head != first
    assert followed.remote("log", "-1", "--format=%P %an", "main") == f"{pushed} Ada Lovelace"
    assert followed.job(job).revision == head
    assert followed.home.state.repository.jobs_in_history([str(job)]) == {str(job): head}
    assert "fastcgi: false" in followed.document()
    assert "redis: false" in followed.document()
    assert outside(followed.forge) == before


def test_a_push_to_the_store_itself_goes_there_whatever_it_changes(
    followed: Followed, person: Clone, tmp_path: Path
) -> None:
    operator = Clone(followed.store, tmp_path / "operator")
    operator.replace(HERE, "redis: true", "redis: false")
    operator.push({"app/by-the-operator.txt": "here\n"}, "Note")
    operator.push({"app/main.c": "from here\n"}, "Ours")
    person.push({"app/main.c": "from there\n"}, "Theirs")
    assert followed.following.look().state is State.IN_STEP
    followed.both()
    assert "redis: false" in person.read(HERE)
    assert person.read("app/by-the-operator.txt") == "here\n"
    assert person.read("app/main.c") == "from there\n"
    (dropped,) = followed.following.upstream.dropped()
    assert dropped.subject == "Ours"
    assert "app/main.c" in dropped.reason


def test_a_job_that_fits_no_more_ends_and_says_so(followed: Followed, person: Clone) -> None:
    job = followed.home.operations.create_site("Mine", "blog", ADA)
    person.push(below(site_documents("blog")))
    assert followed.following.look().state is State.IN_STEP
    followed.both()
    ended = followed.job(job)
    assert (ended.status, ended.error_code) == (JobStatus.FAILED, "UPSTREAM_CONFLICT")


def test_an_empty_forge_is_filled_below_the_folder(tmp_path: Path) -> None:
    forge = tmp_path / "empty.git"
    run_git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(forge))
    settings = Settings(home=tmp_path / "home", upstream=f"file://{forge}", upstream_path=FOLDER)
    create(settings, AUTHOR)
    one = followed_at(settings.home, forge, upstream_path=FOLDER)
    try:
        assert one.following.look().state is State.IN_STEP
        one.both()
        names = one.remote("ls-tree", "-r", "--name-only", "main").split()
        assert f"{FOLDER}/platform.yaml" in names
        assert all(name.startswith(f"{FOLDER}/") for name in names)
    finally:
        one.home.close()


@pytest.mark.long
def test_somebody_pushes_beside_and_into_the_folder_while_the_api_commits(followed: Followed, person: Clone) -> None:
    """``ROUNDS`` pushes that change a document and a file at the top, each racing with commits of the API."""
    for setting in ("receive.denyNonFastForwards", "receive.denyDeletes"):
        followed.remote("config", setting, "true")
    untouched = outside(followed.forge)
    start = followed.both()
    argv = [sys.executable, "-c", PUSHER, str(person.path), HERE, str(ROUNDS), "0.4"]
    pusher = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    over, dice = threading.Event(), random.Random(7)

    def go_on_following() -> None:
        while not over.is_set():
            assert followed.following.look().is_well

    jobs: dict[UUID, str | None] = {}
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(go_on_following)
        try:
            while len(jobs) < ROUNDS or pusher.poll() is None:
                job = followed.set_cache(fastcgi=len(jobs) % 2 == 0)
                jobs[job] = followed.job(job).revision
                time.sleep(dice.uniform(0, 0.4))
        finally:
            over.set()
        following.result(120)
    acknowledged = pusher.communicate(timeout=120)[0].split()
    assert followed.following.look().state is State.IN_STEP
    head = followed.both()
    log = followed.remote("log", "--format=%H", f"{start}..{head}").split()
    trailers = followed.remote("log", "--format=%(trailers:key=Trueup-Job,valueonly,separator=)", head).split()
    assert len(acknowledged) == ROUNDS
    assert set(acknowledged) <= set(log)
    assert sorted(trailers) == sorted(map(str, jobs)), "each once"
    assert len(log) == ROUNDS + len(jobs)
    assert followed.remote("show", f"{head}:pushed.txt").split() == [str(number) for number in range(ROUNDS)]
    assert [line for line in outside(followed.forge) if not line.endswith("\tpushed.txt")] == untouched
    ours = followed.remote("log", "--committer=Trueup", "--name-only", "--format=", f"{start}..{head}").split()
    assert set(ours) == {HERE}
    document = followed.document()
    assert f"# push {ROUNDS - 1}\n" in document
    assert f"fastcgi: {str(len(jobs) % 2 == 1).lower()}" in document
    known = followed.home.state.repository.jobs_in_history(map(str, jobs))
    assert {str(job): followed.job(job).revision for job in jobs} == known
    assert followed.following.upstream.dropped() == []
    anew = sum(known[str(job)] != revision for job, revision in jobs.items())
    assert anew, "there was no race"
    fsck(followed.store)
    fsck(followed.forge)
    print(f"{ROUNDS} pushes, {len(jobs)} commits of the API, {anew} of them made anew")


# Reverts, reports


def test_a_revert_upstream_is_an_undo(followed: Followed, person: Clone) -> None:
    followed.set_cache(redis=False)
    assert followed.following.look().state is State.IN_STEP
    ours = followed.both()
    person.push({"app/main.c": "meanwhile\n"})
    run_git(person.path, "revert", "--no-edit", ours)
    run_git(person.path, "push", "-q", "origin", "HEAD:main")
    assert followed.following.look().state is State.IN_STEP
    assert followed.fleet.environments_by_key["shop/production"].manifest.spec.cache.redis
    subjects = [change.subject for change, _ in followed.home.state.repository.changes(ENVIRONMENT, 10)]
    assert subjects[0].startswith("Revert")
    assert subjects[2:] == ["Begin with the hosting"]


def test_a_trailer_in_a_commit_that_changes_the_folder_confirms(followed: Followed, person: Clone) -> None:
    content = uuid4()
    text = person.read(HERE) + f"  content: {{id: {content}}}\n"
    person.push({HERE: text, "app/main.c": "x\n"}, "Back\n\nTrueup-Confirm: shop/production")
    followed.following.look()
    environment = followed.fleet.environments_by_key["shop/production"]
    assert is_confirmed(followed.home.state, environment, content)
    assert not is_confirmed(followed.home.state, environment, uuid4())


def test_a_drift_report_names_a_document_from_the_top_of_the_repository_on(followed: Followed, person: Clone) -> None:
    person.push({f"{FOLDER}/sites/shop/site.yaml": "apiVersion: trueup/v1\nkind: Site\nspec: {colour: red}\n"})
    followed.following.look()
    assert [stalled.path for stalled in followed.fleet.stalled] == ["sites/shop/site.yaml"]
    plane = ControlPlane(followed.home.settings.home)
    (stalled,) = json.loads(plane.cli("drift", "report", "--format", "json").stdout)["stalled"]
    assert (stalled["path"], stalled["line"]) == (f"{FOLDER}/sites/shop/site.yaml", 3)


# Served


@pytest.mark.long
def test_what_is_pushed_becomes_a_job_at_once_here_and_there(
    control_plane: MakeControlPlane, forge: Path, person: Clone, tmp_path: Path
) -> None:
    """By a hook of the forge, and by the store's own."""
    person.push(below(DOCUMENTS))
    settings = {"TRUEUP_UPSTREAM": f"file://{forge}", "TRUEUP_UPSTREAM_PATH": FOLDER, "TRUEUP_UPSTREAM_POLL": "3600"}
    plane = control_plane(TRUEUP_WORKERS="0", **settings)
    until(lambda: ready(plane)["upstream"] == "in-step", "the first look", told=plane.log)
    assert f"upstream file://{forge} (main, {FOLDER}): in-step since" in plane.cli("status").stdout
    tell(forge, "github", plane, make_key(plane))
    pushed = person.push(below(site_documents("blog")))
    until(lambda: len(plane.http.get("/api/sites").json()) == 2, "the site", told=plane.log)
    assert plane.git("rev-parse", "main") == pushed
    operator = Clone(plane.store, tmp_path / "operator")
    operator.push({**below(site_documents("third")), "app/main.c": "from the store\n"})
    until(lambda: len(plane.http.get("/api/sites").json()) == 3, "the third", told=plane.log)
    until(lambda: run_git(forge, "rev-parse", "main") == plane.git("rev-parse", "main"), "the push", told=plane.log)
    assert person.read("app/main.c") == "from the store\n"
    plan = json.loads(plane.cli("plan", "--no-observe", "-o", "json").stdout)
    assert plan["stalled"] == []
