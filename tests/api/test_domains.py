"""Domains as the API declares and tells them; no node has been asked here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from reconciler.core.fleet import Fleet
from reconciler.core.observed import CertificateFailure, ObservedDomain, ObservedNode
from tests.api.control import Control, assert_error
from tests.core.fake_node import configured, provisioned, served

NAME = "shop.example.com"


def _add(client: TestClient, environment: object, name: str = NAME) -> str:
    answer = client.post(f"/api/environments/{environment}/domains", json={"hostname": name})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def _observed(control: Control, domain: ObservedDomain) -> None:
    """The only node, as if it had been seen with this certificate."""
    fleet: Fleet = control.state.fleet()
    (node,), (environment,) = fleet.nodes.values(), fleet.environments.values()
    there = configured(fleet.environment_variables(environment.id)).model_copy(update={"domains": {NAME: domain}})
    answer: ObservedNode = provisioned(fleet.node_variables(node.id))
    answer = answer.model_copy(update={"environments": {str(environment.id): there}})
    control.records.observations.save(node.id, answer, control.clock())


def test_a_domain_is_declared_and_told(control: Control, client: TestClient) -> None:
    _, environment = control.create_site("acme")
    url = f"/api/environments/{environment}"
    assert client.get(f"{url}/domains").json() == []
    assert client.get(url).json()["primary_domain_id"] is None
    job = client.get(f"/api/jobs/{_add(client, environment)}").json()
    assert (job["job_type"], job["status"], job["environment_id"]) == ("domain-add", "queued", str(environment))
    (domain,) = client.get(f"{url}/domains").json()
    assert (domain["hostname"], domain["tls_status"], domain["tls_issuer"]) == (NAME, "pending", None)
    assert client.get(url).json()["primary_domain_id"] == domain["id"]
    removal = client.delete(f"/api/domains/{domain['id']}")
    assert removal.status_code == 202
    assert client.get(f"/api/jobs/{removal.json()['job_id']}").json()["job_type"] == "domain-remove"
    assert client.get(f"{url}/domains").json() == []
    assert_error(client.delete(f"/api/domains/{domain['id']}"), 404, "not_found")


def test_it_was_made_when_it_was_declared(control: Control, client: TestClient) -> None:
    _, environment = control.create_site("acme")
    _add(client, environment)
    first = client.get(f"/api/environments/{environment}/domains").json()[0]
    _add(client, environment, "www.shop.example.com")
    _add(client, environment)
    control.push("sites/acme/environments/production.yaml", "fastcgi: true", "fastcgi: false")
    domains = client.get(f"/api/environments/{environment}/domains").json()
    assert [domain["hostname"] for domain in domains] == [NAME, "www.shop.example.com"]
    assert domains[0] == first, "what else changes in the document is none of its business"
    assert datetime.fromisoformat(first["created_at"]) <= datetime.now(UTC)


def test_its_certificate_is_the_one_that_was_seen(control: Control, client: TestClient) -> None:
    _, environment = control.create_site("acme")
    _add(client, environment)
    url = f"/api/environments/{environment}/domains"
    now = datetime.now(UTC)
    failure = CertificateFailure(code="DNS_ELSEWHERE", message="elsewhere", at=now + timedelta(hours=1), count=1)
    _observed(control, ObservedDomain(failure=failure))
    (domain,) = client.get(url).json()
    assert (domain["tls_status"], domain["tls_issuer"]) == ("failed", None)
    assert datetime.fromisoformat(domain["updated_at"]) == failure.at
    lasting = served(issuer="An issuer").model_copy(update={"not_after": now + timedelta(days=50)})
    _observed(control, ObservedDomain(served=lasting))
    (domain,) = client.get(url).json()
    assert (domain["tls_status"], domain["tls_issuer"]) == ("active", "An issuer")


def test_a_name_of_another_environment_is_a_conflict(control: Control, client: TestClient) -> None:
    _, one = control.create_site("acme")
    _, other = control.create_site("globex")
    _add(client, one)
    answer = client.post(f"/api/environments/{other}/domains", json={"hostname": NAME})
    assert "acme/production" in assert_error(answer, 409, "conflict")
    preview = client.get(f"/api/environments/{one}").json()["preview_url"].partition("://")[2]
    answer = client.post(f"/api/environments/{other}/domains", json={"hostname": preview})
    assert "preview address" in assert_error(answer, 409, "conflict")


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "Shop.example.com",
        "-a.example.com",
        "a..example.com",
        "a_b.example.com",
        "192.0.2.1",
        "*.a.com",
        "",
    ],
)
def test_what_is_no_host_name_is_refused(control: Control, client: TestClient, name: str) -> None:
    _, environment = control.create_site("acme")
    answer = client.post(f"/api/environments/{environment}/domains", json={"hostname": name})
    assert "hostname" in assert_error(answer, 400, "invalid_request")


def test_unknown_ids(control: Control, client: TestClient) -> None:
    assert_error(client.get(f"/api/environments/{uuid4()}/domains"), 404, "not_found")
    assert_error(client.post(f"/api/environments/{uuid4()}/domains", json={"hostname": NAME}), 404, "not_found")
