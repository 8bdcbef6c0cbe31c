"""Many clients at once, against the real process: each is told the truth, and nothing is lost."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from httpx import Response
from ruamel.yaml import YAML

from tests.controlplane import ControlPlane, MakeControlPlane, closed_port, node_document, run_git, site_documents
from tests.proof import count

ENVIRONMENTS, PATCHES, THREADS = 50, 200, 16
FIELDS = {"fastcgi_cache_enabled": "fastcgi", "redis_cache_enabled": "redis"}


@pytest.fixture(scope="module")
def plane(shared_control_plane: MakeControlPlane) -> ControlPlane:
    """Fifty environments and nobody who works."""
    documents = {"nodes/web-1.yaml": node_document(port=closed_port())}
    for number in range(ENVIRONMENTS):
        documents |= site_documents(f"site-{number}")
    return shared_control_plane(documents, TRUEUP_WORKERS="0", TRUEUP_SCHEDULE="false")


def test_two_clients_make_the_same_slug(plane: ControlPlane) -> None:
    rounds = count(short=4, full=12)
    together = Barrier(2)

    def create(client: Any) -> list[Response]:
        answers = []
        for number in range(rounds):
            together.wait()
            answers.append(client.post("/api/sites", json={"name": "Twin", "slug": f"twin-{number}"}))
        return answers

    with plane.client() as one, plane.client() as other, ThreadPoolExecutor(2) as pool:
        pairs = list(zip(*pool.map(create, (one, other)), strict=True))

    assert [sorted(answer.status_code for answer in pair) for pair in pairs] == [[202, 409]] * rounds
    assert {answer.json()["code"] for pair in pairs for answer in pair if answer.status_code == 409} == {"conflict"}
    slugs = Counter(site["slug"] for site in plane.http.get("/api/sites").json())
    assert all(slugs[f"twin-{number}"] == 1 for number in range(rounds))
    commits = plane.declaring_commits()
    for pair in pairs:
        (accepted,) = (answer.json()["job_id"] for answer in pair if answer.status_code == 202)
        assert len(commits[accepted]) == 1
    assert plane.git("log", "--format=%s", "--grep", "^Create site twin-").count("\n") == rounds - 1
    with plane.opened() as home:
        assert home.records.jobs.uncommitted() == []


@pytest.mark.long
def test_cache_changes_at_once(plane: ControlPlane) -> None:
    dice = random.Random(4)
    ids = [site["primary_environment_id"] for site in plane.http.get("/api/sites").json() if "site-" in site["slug"]]
    head = plane.git("rev-parse", "main")
    asked = [(ids[n % ENVIRONMENTS], dice.choice(list(FIELDS)), dice.random() < 0.5) for n in range(PATCHES)]
    dice.shuffle(asked)

    def patch(one: tuple[str, str, bool]) -> str:
        environment_id, field, flag = one
        with plane.client() as client:
            answer = client.patch(f"/api/environments/{environment_id}/cache", json={field: flag})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    with ThreadPoolExecutor(THREADS) as pool:
        jobs = dict(zip(pool.map(patch, asked), asked, strict=True))

    assert len(jobs) == PATCHES
    commits = {job: revisions for job, revisions in plane.declaring_commits().items() if job in jobs}
    assert commits.keys() == jobs.keys()
    assert all(len(revisions) == 1 for revisions in commits.values())
    order = plane.git("rev-list", "--reverse", f"{head}..main").split()
    assert len(order) == PATCHES
    job_of = {revisions[0]: job for job, revisions in commits.items()}
    last: dict[tuple[str, str], bool] = {}
    for revision in order:
        environment_id, field, flag = jobs[job_of[revision]]
        last[environment_id, field] = flag
    assert {key: cache_flag(plane, *key) for key in last} == last
    with plane.opened() as home:
        assert home.records.jobs.uncommitted() == []
        assert {home.records.jobs.get(UUID(job)).revision for job in jobs} == set(order)
    run_git(plane.store, "fsck", "--strict")


def cache_flag(plane: ControlPlane, environment_id: str, field: str) -> bool:
    """As the store has it, and the API alike."""
    shown = plane.http.get(f"/api/environments/{environment_id}").json()
    site = next(s["slug"] for s in plane.http.get("/api/sites").json() if s["primary_environment_id"] == environment_id)
    text = plane.git("show", f"main:sites/{site}/environments/production.yaml")
    flag = YAML(typ="safe").load(text)["spec"]["cache"][FIELDS[field]]
    assert shown[field] is flag
    return bool(flag)
