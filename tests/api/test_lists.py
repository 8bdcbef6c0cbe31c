"""Lists in parts: every item once, in order, whatever comes and goes meanwhile."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from reconciler.records.backups import Backup
from tests.api.control import Control, assert_error


def walk(client: TestClient, url: str, **query: str | int) -> list[list[dict[str, Any]]]:
    """The parts, following ``Link`` to the end."""
    response = client.get(url, params=query)
    parts = [response.json()]
    while "link" in response.headers:
        match = re.fullmatch(r'<(/api/[^>]+)>; rel="next"', response.headers["link"])
        assert match
        response = client.get(match[1])
        assert response.status_code == 200, response.text
        parts.append(response.json())
    return parts


def test_sites_in_parts(control: Control, client: TestClient) -> None:
    for slug in ("cobra", "acme", "delta", "bravo", "echo"):
        control.create_site(slug)
    slugs = [[site["slug"] for site in part] for part in walk(client, "/api/sites", limit=2)]
    assert slugs == [["acme", "bravo"], ["cobra", "delta"], ["echo"]]
    whole = client.get("/api/sites")
    assert "link" not in whole.headers
    assert [site["slug"] for site in whole.json()] == [slug for part in slugs for slug in part]


def test_what_comes_meanwhile_moves_nothing_else(control: Control, client: TestClient) -> None:
    for slug in ("bravo", "delta"):
        control.create_site(slug)
    following = client.get("/api/sites", params={"limit": 1}).links["next"]["url"]
    control.create_site("acme")
    control.create_site("cobra")
    assert [site["slug"] for site in client.get(following).json()] == ["cobra"]


def test_environments_begin_with_production(control: Control, client: TestClient) -> None:
    site, environment = control.create_site("acme")
    control.set_status(environment, "active")
    for slug in ("beta", "alpha"):
        body = {"name": slug, "slug": slug, "type": "staging"}
        assert client.post(f"/api/sites/{site}/environments", json=body).status_code == 202
    parts = walk(client, f"/api/sites/{site}/environments", limit=1)
    assert [one["slug"] for part in parts for one in part] == ["production", "alpha", "beta"]


def test_backups_newest_first(control: Control, client: TestClient) -> None:
    _, environment = control.create_site("acme")
    moment = control.clock()
    ids = sorted(uuid4() for _ in range(5))
    for id_ in ids:  # all of the same moment
        backup = Backup(id=id_, environment_id=environment, backup_scope="db", status="failed", created_at=moment)
        control.records.backups.save(backup)
    parts = walk(client, f"/api/environments/{environment}/backups", limit=2)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert [one["id"] for part in parts for one in part] == [str(id_) for id_ in reversed(ids)]


def test_jobs_by_status_site_and_environment(control: Control, client: TestClient) -> None:
    made = {slug: control.create_site(slug) for slug in ("acme", "bravo", "cobra")}
    site, environment = made["bravo"]
    [job] = client.get("/api/jobs", params={"site_id": str(site)}).json()
    assert (job["site_id"], job["environment_id"]) == (str(site), str(environment))
    assert client.get("/api/jobs", params={"environment_id": str(environment)}).json() == [job]
    assert client.get("/api/jobs", params={"environment_id": str(uuid4())}).json() == []
    client.post(f"/api/jobs/{job['id']}/cancel")
    assert [one["id"] for one in client.get("/api/jobs", params={"status": "cancelled"}).json()] == [job["id"]]
    parts = walk(client, "/api/jobs", status="queued", limit=1)
    assert [len(part) for part in parts] == [1, 1]
    assert {one["site_id"] for part in parts for one in part} == {str(made[slug][0]) for slug in ("acme", "cobra")}


@pytest.mark.parametrize("url", ["/api/sites", "/api/jobs", "/api/nodes"])
@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "limit=", "cursor=x", "cursor=%00", "cursor=WzFd", f"cursor={'a' * 1001}"],
)
def test_what_cannot_be_asked(client: TestClient, url: str, query: str) -> None:
    assert_error(client.get(f"{url}?{query}"), 400, "invalid_request")


@pytest.mark.parametrize("query", ["status=done", "status=", "site_id=acme", "environment_id=1"])
def test_filters_that_cannot_be(client: TestClient, query: str) -> None:
    assert_error(client.get(f"/api/jobs?{query}"), 400, "invalid_request")


def test_a_cursor_of_another_list_is_refused(control: Control, client: TestClient) -> None:
    control.create_site("acme")
    control.create_site("bravo")
    cursor = client.get("/api/sites", params={"limit": 1}).links["next"]["url"].partition("cursor=")[2]
    assert_error(client.get(f"/api/jobs?cursor={cursor}"), 400, "invalid_request")
