"""Drift reports over HTTP: made as a job, listed, and shown in each shape."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from api.routes.drift_reports import Shape, preferred
from tests.api.control import Control, assert_error
from tests.api.reports import make_report


@pytest.mark.parametrize(
    ("accept", "shape"),
    [
        ("", Shape.JSON),
        ("*/*", Shape.JSON),
        ("application/json", Shape.JSON),
        ("text/markdown", Shape.MARKDOWN),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Shape.HTML),
        ("text/*", Shape.MARKDOWN),
        ("text/html;q=0.2, application/json;q=0.7", Shape.JSON),
        ("TEXT/HTML; q=1", Shape.HTML),
        ("application/json;q=0, text/html", Shape.HTML),
        ("image/png", Shape.JSON),
        ("text/html;q=nonsense", Shape.JSON),
    ],
)
def test_the_shape_that_a_client_would_rather_have(accept: str, shape: Shape) -> None:
    assert preferred(accept) is shape


def test_a_report_is_asked_for_and_read(control: Control, client: TestClient) -> None:
    control.create_site("acme")
    accepted = client.post("/api/drift-reports")
    assert accepted.status_code == 202
    job = client.get(accepted.headers["location"]).json()
    assert (job["job_type"], job["site_id"], job["environment_id"], job["node_id"]) == (
        "drift-report",
        None,
        None,
        None,
    )
    id_ = make_report(control)
    report = client.get(f"/api/drift-reports/{id_}").json()
    assert (report["id"], report["trigger"], report["requested_by"]) == (str(id_), "request", "ops@example.com")
    assert [one["environment"] for one in report["environments"]] == ["acme/production"]
    assert (report["status"], report["deliveries"]) == ("unknown", []), "its node was never asked"


def test_the_same_report_in_each_shape(control: Control, client: TestClient) -> None:
    control.create_site("acme")
    url = f"/api/drift-reports/{make_report(control)}"
    for query, accept in (("?format=html", "application/json"), ("", "text/html")):
        page = client.get(f"{url}{query}", headers={"Accept": accept})
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.text.startswith("<!doctype html>")
    for query, accept in (("?format=markdown", "*/*"), ("", "text/markdown")):
        shown = client.get(f"{url}{query}", headers={"Accept": accept})
        assert shown.headers["content-type"] == "text/markdown; charset=utf-8"
        assert shown.text.startswith("# Drift report\n")
    assert client.get(f"{url}?format=json", headers={"Accept": "text/html"}).json()["id"]
    assert_error(client.get(f"{url}?format=pdf"), 400, "invalid_request")


def test_newest_first_and_in_parts(control: Control, client: TestClient) -> None:
    made = []
    for _ in range(3):
        made.append(str(make_report(control)))
        control.clock.ahead += timedelta(minutes=1)
    first = client.get("/api/drift-reports", params={"limit": 2})
    assert [one["id"] for one in first.json()] == [made[2], made[1]]
    assert "environments" not in first.json()[0]
    assert [one["id"] for one in client.get(first.links["next"]["url"]).json()] == [made[0]]


def test_what_became_of_it_is_told_without_what_is_secret(control: Control, client: TestClient) -> None:
    target = "{type: webhook, url: 'https://hooks.example.com/services/T0/B0/s3cret'}"
    spec = f"apiVersion: trueup/v1\nkind: Platform\nspec:\n  reports:\n    targets: [{target}]\n"
    control.add({"platform.yaml": spec.encode()})
    answer = client.get(f"/api/drift-reports/{make_report(control)}")
    (delivery,) = answer.json()["deliveries"]
    assert (delivery["target"], delivery["status"]) == ("webhook https://hooks.example.com", "pending")
    assert "s3cret" not in answer.text
    metrics = control.client().get("/metrics").text
    assert 'trueup_report_targets{status="pending"} 1.0' in metrics


def test_what_is_not_there(client: TestClient) -> None:
    assert_error(client.get(f"/api/drift-reports/{uuid4()}"), 404, "not_found")
    assert client.get("/api/drift-reports").json() == []


def test_one_who_may_only_read_makes_none(control: Control) -> None:
    token = control.records.tokens.create("reader", "ops@example.com", control.clock(), read_only=True)
    headers = {"Authorization": f"Bearer {token}"}
    assert control.client().get("/api/drift-reports", headers=headers).status_code == 200
    assert_error(control.client().post("/api/drift-reports", headers=headers), 403, "read_only_token")
