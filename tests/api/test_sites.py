"""Sites and environments: accepted, declared in the store, and told as they are."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

import git
import pytest
from starlette.testclient import TestClient

from tests.api.control import EMAIL, Control, assert_error, site_documents

ACME = {"name": "Acme Inc.", "slug": "acme"}


def log(control: Control, fmt: str) -> list[str]:
    return git.Git(control.repository.path).log(f"--format={fmt}", "main").splitlines()


def test_creating_a_site_is_one_job_and_one_commit(control: Control, client: TestClient) -> None:
    response = client.post("/api/sites", json=ACME)
    job_id = response.json()["job_id"]
    assert response.headers["location"] == f"/api/jobs/{job_id}"
    job = client.get(response.headers["location"]).json()
    assert (job["job_type"], job["status"], job["attempt_count"]) == ("site-create", "queued", 0)
    subject, author, trailer = log(control, "%s%n%an <%ae>%n%(trailers:key=Trueup-Job,valueonly,separator=%x20)")[:3]
    assert subject == "Create site acme on web-1"
    assert author == f"admin <{EMAIL}>"
    assert trailer == job_id
    assert len(log(control, "%H")) == 2


def test_a_new_site_is_told_at_once(control: Control, client: TestClient) -> None:
    client.post("/api/sites", json=ACME)
    [site] = client.get("/api/sites").json()
    assert client.get(f"/api/sites/{site['id']}").json() == site
    assert (site["name"], site["slug"], site["status"]) == ("Acme Inc.", "acme", "deploying")
    [environment] = client.get(f"/api/sites/{site['id']}/environments").json()
    assert client.get(f"/api/environments/{environment['id']}").json() == environment
    assert environment["id"] == site["primary_environment_id"]
    assert environment["site_id"] == site["id"]
    [node] = client.get("/api/nodes").json()
    assert environment["node_id"] == node["id"]
    assert environment["environment_type"] == "production"
    assert environment["preview_url"] == f"http://{environment['id'][:8]}.192-0-2-1.sslip.io"
    assert (environment["fastcgi_cache_enabled"], environment["redis_cache_enabled"]) == (True, True)
    assert (environment["drift_status"], environment["drift_checked_at"]) == ("unknown", None)


def test_taken_slug(client: TestClient) -> None:
    client.post("/api/sites", json=ACME)
    message = assert_error(client.post("/api/sites", json={**ACME, "name": "Other"}), 409, "conflict")
    assert "acme" in message
    assert len(client.get("/api/sites").json()) == 1
    assert len(client.get("/api/jobs").json()) == 1


def test_no_node_to_take_the_site(control: Control, client: TestClient) -> None:
    control.push("nodes/web-1.yaml", "spec:\n", "spec:\n  state: decommissioned\n")
    assert_error(client.post("/api/sites", json=ACME), 409, "no_node_available")
    assert client.get("/api/jobs").json() == []


@pytest.mark.parametrize("path", ["sites/{}", "sites/{}/environments", "environments/{}", "jobs/{}"])
def test_unknown_id(client: TestClient, path: str) -> None:
    unknown = str(uuid4())
    assert unknown in assert_error(client.get("/api/" + path.format(unknown)), 404, "not_found")


def test_cache_flags_are_declared_one_by_one(control: Control, client: TestClient) -> None:
    _, environment = control.create_site("acme")
    url = f"/api/environments/{environment}"

    def flags() -> tuple[bool, bool]:
        told = client.get(url).json()
        return told["fastcgi_cache_enabled"], told["redis_cache_enabled"]

    for body, expected in [
        ({"fastcgi_cache_enabled": False}, (False, True)),
        ({"redis_cache_enabled": False}, (False, False)),
        ({"fastcgi_cache_enabled": True, "redis_cache_enabled": True}, (True, True)),
    ]:
        response = client.patch(f"{url}/cache", json=body)
        assert response.status_code == 202
        assert flags() == expected
        assert client.get(response.headers["location"]).json()["job_type"] == "cache-update"


def test_state_version_grows_by_one_with_each_change(control: Control, client: TestClient) -> None:
    _, environment = control.create_site("acme")
    url = f"/api/environments/{environment}"
    before = client.get(url).json()
    client.patch(f"{url}/cache", json={"fastcgi_cache_enabled": False})
    declared = client.get(url).json()
    control.set_status(environment, "failed")
    failed = client.get(url).json()
    assert declared["state_version"] == before["state_version"] + 1
    assert failed["state_version"] == before["state_version"] + 2
    assert before["created_at"] == declared["created_at"]
    moments = [datetime.fromisoformat(seen["updated_at"]) for seen in (before, declared, failed)]
    assert moments == sorted(moments)
    assert client.get(url).json() == failed


def test_a_failed_environment_takes_no_changes(control: Control, client: TestClient) -> None:
    site, environment = control.create_site("acme")
    control.set_status(environment, "failed")
    url = f"/api/environments/{environment}/cache"
    assert "acme/production" in assert_error(client.patch(url, json={"redis_cache_enabled": False}), 409, "conflict")
    assert client.get(f"/api/sites/{site}").json()["status"] == "failed"


def test_drift_check_and_purge_are_jobs_and_no_commits(control: Control, client: TestClient) -> None:
    site, environment = control.create_site("acme")
    commits = len(log(control, "%H"))
    for path, job_type in (("drift-check", "drift-check"), ("cache/purge", "cache-purge")):
        response = client.post(f"/api/environments/{environment}/{path}")
        job = client.get(response.headers["location"]).json()
        assert (job["job_type"], job["site_id"], job["environment_id"]) == (job_type, str(site), str(environment))
    assert len(log(control, "%H")) == commits


def test_every_change_is_audited_with_who_and_from_where(control: Control) -> None:
    client = control.session("203.0.113.7")
    job_id = client.post("/api/sites", json=ACME).json()["job_id"]
    client.post("/api/sites", json=ACME)
    accepted = [one.entry for one in control.records.audit.latest() if one.entry.job_id == UUID(job_id)]
    assert [(one.who, one.source, one.operation, one.outcome) for one in accepted] == [
        (EMAIL, "203.0.113.7", "site-create", "accepted")
    ]


def test_hand_written_documents_are_told_as_well(control: Control, client: TestClient) -> None:
    control.add(site_documents("globex"))
    [site] = client.get("/api/sites").json()
    assert (site["slug"], site["name"], site["status"], site["state_version"]) == ("globex", "The globex", "active", 1)


def test_a_document_that_stalls_is_told_as_it_was_and_takes_no_changes(control: Control, client: TestClient) -> None:
    _, environment = control.create_site("acme")
    control.create_site("globex")
    control.push("sites/acme/environments/production.yaml", "kind: Environment", "kind: [")
    told = client.get(f"/api/environments/{environment}").json()
    assert told["slug"] == "production"
    url = f"/api/environments/{environment}/cache"
    message = assert_error(client.patch(url, json={"redis_cache_enabled": False}), 409, "conflict")
    assert "sites/acme/environments/production.yaml:" in message
    assert [site["slug"] for site in client.get("/api/sites").json()] == ["acme", "globex"]


def test_jobs_are_told_newest_first_and_at_most_200(control: Control, client: TestClient) -> None:
    _, environment = control.create_site("acme")
    ids = [client.post(f"/api/environments/{environment}/drift-check").json()["job_id"] for _ in range(201)]
    told = [job["id"] for job in client.get("/api/jobs").json()]
    assert len(told) == 200
    assert set(told) == set(ids[1:])
    assert told[0] == ids[-1]
