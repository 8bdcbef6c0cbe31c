"""Another origin's page cannot write, whatever cookie the browser sends along."""

from __future__ import annotations

import pytest

from tests.api.control import Control, assert_error

SITE = {"name": "Acme", "slug": "acme"}

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://testserver.evil.example"},
    {"Origin": "http://testserver:8080"},
    {"Origin": "file://testserver"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site"},
]
OWN = [
    {},
    {"Origin": "http://testserver"},
    {"Origin": "http://TESTSERVER"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_foreign_writes_are_refused_and_change_nothing(control: Control, headers: dict[str, str]) -> None:
    client = control.session()
    assert_error(client.post("/api/sites", json=SITE, headers=headers), 403, "cross_origin")
    assert client.get("/api/sites").json() == []


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_own_writes_are_accepted(control: Control, headers: dict[str, str]) -> None:
    assert control.session().post("/api/sites", json=SITE, headers=headers).status_code == 202


def test_login_is_a_write(control: Control) -> None:
    headers = {"Origin": "https://evil.example"}
    response = control.client().post("/api/login", json={"email": "a@b", "password": "x"}, headers=headers)
    assert_error(response, 403, "cross_origin")


def test_a_page_by_http_cannot_write_to_one_by_tls(control: Control) -> None:
    client = control.client(base_url="https://testserver", Origin="http://testserver")
    assert_error(client.post("/api/login", json={"email": "a@b", "password": "x"}), 403, "cross_origin")


def test_reads_are_not_writes(control: Control) -> None:
    assert control.session().get("/api/sites", headers={"Origin": "https://evil.example"}).status_code == 200


def test_no_answer_invites_other_origins(control: Control) -> None:
    response = control.session().get("/api/sites", headers={"Origin": "https://evil.example"})
    assert [name for name in response.headers if name.startswith("access-control")] == []
    preflight = control.client().options(
        "/api/sites", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert_error(preflight, 405, "method_not_allowed")
