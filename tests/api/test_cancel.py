"""Cancelling what waits: at once, and Git says what it said before. What runs is in tests/operations/test_cancel.py."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from reconciler.records.outcomes import Succeeded
from reconciler.records.queue import Queue
from tests.api.control import Control, assert_error
from tests.api.promotable import PLATFORM

OURS = "sites/ours/environments/production.yaml"
DEPLOY: dict[str, object] = {"source_type": "upload", "source_ref": "https://example.com/site.tar.gz"}


@pytest.fixture
def environment(control: Control) -> UUID:
    _, environment = control.create_site("acme")
    queue = Queue(control.records.engine)
    claimed = queue.claim("worker", control.clock())
    assert claimed is not None
    queue.finish(claimed.job.id, claimed.fence, Succeeded(), control.clock())
    control.set_status(environment, "active")
    return environment


def cancel(client: TestClient, job_id: str) -> dict[str, object]:
    answer = client.post(f"/api/jobs/{job_id}/cancel")
    assert answer.status_code == 202, answer.text
    assert answer.json() == {"job_id": job_id}
    found: dict[str, object] = client.get(answer.headers["location"]).json()
    return found


def document(control: Control, slug: str = "production") -> object:
    return control.state.fleet().environments_by_key[f"acme/{slug}"].manifest


def test_a_deploy_that_waits(control: Control, client: TestClient, environment: UUID) -> None:
    before = document(control)
    job_id = client.post(f"/api/environments/{environment}/deploy", json=DEPLOY).json()["job_id"]
    assert client.get(f"/api/environments/{environment}").json()["status"] == "deploying"
    job = cancel(client, job_id)
    assert (job["status"], job["started_at"], job["error_code"]) == ("cancelled", None, None)
    assert document(control) == before
    assert client.get(f"/api/environments/{environment}").json()["status"] == "active"
    assert cancel(client, job_id) == job, "again changes nothing"
    assert len(client.get("/api/jobs").json()) == 2
    entry = control.records.audit.latest()[0].entry
    assert (entry.operation, str(entry.job_id)) == ("job-cancel", job_id)


def test_what_was_declared_since_stays(control: Control, client: TestClient, environment: UUID) -> None:
    job_id = client.post(f"/api/environments/{environment}/deploy", json=DEPLOY).json()["job_id"]
    control.push(
        "sites/acme/environments/production.yaml", "https://example.com/site.tar.gz", "https://example.com/b.zip"
    )
    now = document(control)
    cancel(client, job_id)
    assert document(control) == now


def test_a_cache_update_that_waits(control: Control, client: TestClient, environment: UUID) -> None:
    url = f"/api/environments/{environment}"
    job_id = client.patch(f"{url}/cache", json={"fastcgi_cache_enabled": False}).json()["job_id"]
    assert client.get(url).json()["fastcgi_cache_enabled"] is False
    cancel(client, job_id)
    assert client.get(url).json()["fastcgi_cache_enabled"] is True


def hostnames(control: Control, environment: UUID) -> list[str]:
    """As declared: the first is the primary one."""
    return [domain.hostname for domain in control.state.fleet().environment(environment).manifest.spec.domains]


def test_a_domain_that_waits_goes_and_the_later_one_stays(
    control: Control, client: TestClient, environment: UUID
) -> None:
    url = f"/api/environments/{environment}/domains"
    names = ["one.example.com", "two.example.com", "three.example.com"]
    jobs = [client.post(url, json={"hostname": name}).json()["job_id"] for name in names]
    cancel(client, jobs[1])
    assert hostnames(control, environment) == ["one.example.com", "three.example.com"]
    cancel(client, jobs[0])
    cancel(client, jobs[2])
    assert hostnames(control, environment) == []


def test_a_domain_comes_back_to_its_place_when_its_removal_is_cancelled(
    control: Control, client: TestClient, environment: UUID
) -> None:
    names = ["one.example.com", "two.example.com", "three.example.com"]
    for name in names:
        client.post(f"/api/environments/{environment}/domains", json={"hostname": name})
    before = document(control)
    ids = {one["hostname"]: one["id"] for one in client.get(f"/api/environments/{environment}/domains").json()}
    jobs = [client.delete(f"/api/domains/{ids[name]}").json()["job_id"] for name in names[:2]]
    assert hostnames(control, environment) == ["three.example.com"]
    cancel(client, jobs[1])
    assert hostnames(control, environment) == ["two.example.com", "three.example.com"]
    cancel(client, jobs[0])
    assert document(control) == before, "ids and order, too"


def test_a_name_that_another_environment_has_by_now_stays_there(
    control: Control, client: TestClient, environment: UUID
) -> None:
    url, body = f"/api/environments/{environment}/domains", {"hostname": "one.example.com"}
    job_id = client.post(url, json=body).json()["job_id"]
    [domain] = client.get(url).json()
    removal = client.delete(f"/api/domains/{domain['id']}").json()["job_id"]
    _, other = control.create_site("other")
    control.set_status(other, "active")
    assert client.post(f"/api/environments/{other}/domains", json=body).status_code == 202
    cancel(client, removal)
    cancel(client, job_id)
    assert hostnames(control, environment) == []
    assert hostnames(control, other) == ["one.example.com"]


WRITTEN = b"""\
# Looked after by Ada.
apiVersion: trueup/v1
kind: Environment
spec:
  type: production
  node: web-1   # the small one
  cache: {redis: false}
# the end
"""
REQUESTS: dict[str, tuple[str, str, dict[str, object]]] = {
    "deploy": ("POST", "deploy", DEPLOY),
    "update": ("POST", "updates", {"scope": "all"}),
    "import": ("POST", "import", {"archive_url": "https://example.com/export.tar.gz"}),
    "cache": ("PATCH", "cache", {"fastcgi_cache_enabled": False}),
    "domain": ("POST", "domains", {"hostname": "one.example.com"}),
}


@pytest.fixture
def written(control: Control) -> UUID:
    """An environment that somebody wrote by hand, without a release, domains or all of its flags."""
    control.add({"platform.yaml": PLATFORM, "sites/ours/site.yaml": b"apiVersion: trueup/v1\nkind: Site\n"})
    control.add({OURS: WRITTEN})
    environment = control.state.fleet().environments_by_key["ours/production"].id
    control.set_status(environment, "active")
    return environment


def text(control: Control) -> bytes | None:
    return control.repository.content(OURS, "main")


def ask(control: Control, client: TestClient, written: UUID, name: str) -> str:
    method, path, body = REQUESTS[name]
    site = control.state.fleet().sites_by_slug["ours"].id
    owner = f"sites/{site}" if name == "import" else f"environments/{written}"
    answer = client.request(method, f"/api/{owner}/{path}", json=body)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


@pytest.mark.parametrize("name", REQUESTS)
def test_a_document_is_again_what_somebody_wrote(
    control: Control, client: TestClient, written: UUID, name: str
) -> None:
    job_id = ask(control, client, written, name)
    assert text(control) != WRITTEN
    cancel(client, job_id)
    assert text(control) == WRITTEN


@pytest.mark.parametrize("name", REQUESTS)
def test_what_somebody_wrote_since_stays_and_nothing_is_left_beside_it(
    control: Control, client: TestClient, written: UUID, name: str
) -> None:
    job_id = ask(control, client, written, name)
    control.push(OURS, "the small one", "the large one")
    cancel(client, job_id)
    expected = WRITTEN.replace(b"the small one", b"the large one")
    assert text(control) == expected


def test_a_deploy_takes_the_record_of_an_update_out(control: Control, client: TestClient, written: UUID) -> None:
    versions = "  versions: # by the update of May\n    plugins: {sample: '2.0'}\n    themes: {}\n"
    control.push(OURS, "  cache:", f"{versions}  cache:")
    before = text(control)
    job_id = ask(control, client, written, "deploy")
    assert b"versions" not in (text(control) or b"")
    cancel(client, job_id)
    assert text(control) == before


def test_a_removed_domain_stands_where_it_stood(control: Control, client: TestClient, written: UUID) -> None:
    control.push(OURS, "  cache:", "  domains:\n    # ours since 2019\n    - hostname: one.example.com\n  cache:")
    before = text(control)
    [domain] = client.get(f"/api/environments/{written}/domains").json()
    job_id = client.delete(f"/api/domains/{domain['id']}").json()["job_id"]
    assert text(control) != before
    cancel(client, job_id)
    assert text(control) == before


def test_a_site_that_was_never_begun_is_declared_no_more(control: Control, client: TestClient) -> None:
    job_id = client.post("/api/sites", json={"name": "Acme", "slug": "acme"}).json()["job_id"]
    environment = client.get("/api/sites").json()[0]["primary_environment_id"]
    cancel(client, job_id)
    assert client.get("/api/sites").json() == []
    assert_error(client.get(f"/api/environments/{environment}"), 404, "not_found")
    assert control.records.statuses.all() == {}
    assert client.post("/api/sites", json={"name": "Acme", "slug": "acme"}).status_code == 202


def test_a_copy_that_was_never_begun(control: Control, client: TestClient, environment: UUID) -> None:
    site = client.get("/api/sites").json()[0]["id"]
    body = {"name": "Try", "slug": "try", "type": "staging"}
    job_id = client.post(f"/api/sites/{site}/environments", json=body).json()["job_id"]
    cancel(client, job_id)
    [left] = client.get(f"/api/sites/{site}/environments").json()
    assert left["id"] == str(environment)


def test_a_backup_that_waits_is_failed(control: Control, client: TestClient, environment: UUID) -> None:
    control.add({"platform.yaml": PLATFORM})
    url = f"/api/environments/{environment}/backups"
    job_id = client.post(url, json={"backup_scope": "full"}).json()["job_id"]
    cancel(client, job_id)
    assert [backup["status"] for backup in client.get(url).json()] == ["failed"]


def test_what_has_ended_and_what_is_not_there(control: Control, client: TestClient, environment: UUID) -> None:
    [job] = client.get("/api/jobs").json()
    message = assert_error(client.post(f"/api/jobs/{job['id']}/cancel"), 409, "conflict")
    assert "succeeded" in message
    assert_error(client.post(f"/api/jobs/{uuid4()}/cancel"), 404, "not_found")
    assert_error(client.post(f"/api/jobs/{job['id']}/cancel", json={"why": "x"}), 400, "invalid_request")


def test_one_that_runs_is_asked_to_stop(control: Control, client: TestClient, environment: UUID) -> None:
    job_id = client.post(f"/api/environments/{environment}/deploy", json=DEPLOY).json()["job_id"]
    queue = Queue(control.records.engine)
    claimed = queue.claim("worker", control.clock())
    assert claimed is not None
    assert not queue.heartbeat(claimed.job.id, claimed.fence, control.clock())
    assert cancel(client, job_id)["status"] == "running"
    assert cancel(client, job_id)["status"] == "running"
    assert queue.heartbeat(claimed.job.id, claimed.fence, control.clock())


def test_a_crash_after_the_cancel_is_made_good(
    control: Control, client: TestClient, environment: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = document(control)
    job_id = client.post(f"/api/environments/{environment}/deploy", json=DEPLOY).json()["job_id"]
    control.records.jobs.cancel(UUID(job_id), control.clock())  # and nothing of what follows
    control.clock.ahead = timedelta(seconds=10)
    control.operations.declarations.settle()
    assert document(control) == before
    assert client.get(f"/api/environments/{environment}").json()["status"] == "active"
