"""Many clients at once: nothing is lost, nothing is done twice."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import git

from tests.api.control import Control, site_documents


def test_the_same_slug_twice_at_once_is_one_site(control: Control) -> None:
    clients = [control.session() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda client: client.post("/api/sites", json={"name": "A", "slug": "a"}), clients))
    assert Counter(answer.status_code for answer in answers) == {202: 1, 409: 7}
    assert len(clients[0].get("/api/sites").json()) == 1
    assert len(clients[0].get("/api/jobs").json()) == 1


def test_cache_changes_at_once_lose_nothing_and_are_one_commit_each(control: Control) -> None:
    documents: dict[str, bytes] = {}
    for number in range(50):
        documents |= site_documents(f"site-{number:02}")
    control.add(documents)
    client = control.session()
    environments = [site["primary_environment_id"] for site in client.get("/api/sites").json()]
    before = len(git.Git(control.repository.path).log("--format=%H", "main").splitlines())
    # Four requests for each environment; they commute, so the end is known whatever the order.
    bodies = [{"fastcgi_cache_enabled": False}, {"redis_cache_enabled": False}] * 2
    work = [(environment, body) for body in bodies for environment in environments]

    def change(job: tuple[str, dict[str, bool]]) -> int:
        environment, body = job
        return control.session().patch(f"/api/environments/{environment}/cache", json=body).status_code

    with ThreadPoolExecutor(16) as pool:
        assert Counter(pool.map(change, work)) == {202: 200}
    for environment in environments:
        told = client.get(f"/api/environments/{environment}").json()
        assert (told["fastcgi_cache_enabled"], told["redis_cache_enabled"]) == (False, False)
        # Two of its four requests declared what was declared already: commits, but no change of the environment.
        assert told["state_version"] == 3
    after = len(git.Git(control.repository.path).log("--format=%H", "main").splitlines())
    assert after - before == 200
