"""Bodies that mean nothing: the contract's error, the field's name, and nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.api.control import Control, assert_error

UNKNOWN = "00000000-0000-4000-8000-000000000000"
JSON = {"Content-Type": "application/json"}

BAD_SLUGS = [
    "", "-acme", "acme-", "Acme", "ac me", "ac_me", "a" * 64, "..", "../etc", "a/b", "a.b", "a\n", "a\x00b", "ä",
    "ａｃｍｅ", "{{ 7*7 }}", "$(id)", "`id`", "a;b", "'a'", '"a"', "--help", "a\u202eb",
]  # fmt: skip
BAD_NAMES = ["", " ", " Acme", "Acme ", "a" * 101, "A\nB", "A\x00B", "A\tB", "A\u202eB", "A\u200bB", "\u2028"]
ODD_NAMES = [
    "{{ 7*7 }}",
    "$(id)",
    "`id`",
    "'; DROP TABLE jobs; --",
    '"quoted"',
    "--help",
    "../..",
    "Ünïcode 北京 🦊",
    "a" * 100,
]


@pytest.mark.parametrize("slug", BAD_SLUGS, ids=repr)
def test_bad_slug(client: TestClient, slug: str) -> None:
    message = assert_error(client.post("/api/sites", json={"name": "Acme", "slug": slug}), 400, "invalid_request")
    assert message.startswith("slug: ")
    assert "pattern" not in message
    assert client.get("/api/sites").json() == []


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_bad_name(client: TestClient, name: str) -> None:
    message = assert_error(client.post("/api/sites", json={"name": name, "slug": "acme"}), 400, "invalid_request")
    assert message.startswith("name: ")


@pytest.mark.parametrize("name", ODD_NAMES, ids=repr)
def test_odd_name_is_kept_as_it_is(control: Control, client: TestClient, name: str) -> None:
    assert client.post("/api/sites", json={"name": name, "slug": "acme"}).status_code == 202
    assert [site["name"] for site in client.get("/api/sites").json()] == [name]
    [site] = control.state.fleet().sites.values()
    assert site.name == name


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"slug": "acme"}, "name"),
        ({"name": "Acme"}, "slug"),
        ({"name": "Acme", "slug": "acme", "node": "web-1"}, "node"),
        ({"name": None, "slug": "acme"}, "name"),
        ({"name": 7, "slug": "acme"}, "name"),
        ({"name": ["Acme"], "slug": "acme"}, "name"),
        ({"name": "Acme", "slug": {"a": 1}}, "slug"),
        ({"name": "Acme", "slug": True}, "slug"),
    ],
    ids=str,
)
def test_wrong_fields_are_named(client: TestClient, body: object, field: str) -> None:
    message = assert_error(client.post("/api/sites", json=body), 400, "invalid_request")
    assert message.startswith(f"{field}: ")


@pytest.mark.parametrize("value", [None, "true", "false", 0, 1, 1.0, [], {}], ids=repr)
@pytest.mark.parametrize("field", ["fastcgi_cache_enabled", "redis_cache_enabled"])
def test_only_a_boolean_is_a_boolean(client: TestClient, field: str, value: object) -> None:
    response = client.patch(f"/api/environments/{UNKNOWN}/cache", json={field: value})
    assert assert_error(response, 400, "invalid_request").startswith(f"{field}: must be true or false")


@pytest.mark.parametrize("body", [{}, {"fastcgi": True}, {"fastcgi_cache_enabled": True, "redis": True}], ids=str)
def test_cache_needs_its_fields_and_no_others(client: TestClient, body: object) -> None:
    assert_error(client.patch(f"/api/environments/{UNKNOWN}/cache", json=body), 400, "invalid_request")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b'"text"', b"7", b'{"name": "A", "slug": "acme"',
        b'{"name": "\xff", "slug": "acme"}',
        b'{"name": "\xed\xa0\x80", "slug": "acme"}', b'{"name": "\\ud800", "slug": "acme"}', b"\xff\xfe{\x00}\x00",
        b'{"name": NaN, "slug": "acme"}', b"[" * 30000, b'{"a":' * 10000, b"1" * 6000, b"\x00" * 100,
        b"name=Acme&slug=acme", b"<site/>",
    ],
    ids=lambda content: repr(content[:30]),
)  # fmt: skip
def test_unreadable_body(client: TestClient, content: bytes) -> None:
    assert_error(client.post("/api/sites", content=content, headers=JSON), 400, "invalid_request")
    assert client.get("/api/sites").json() == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_body_of_another_type(client: TestClient, kind: str) -> None:
    body = json.dumps({"name": "Acme", "slug": "acme"}).encode()
    response = client.post("/api/sites", content=body, headers={"Content-Type": kind} if kind else {})
    assert "application/json" in assert_error(response, 400, "invalid_request")


def test_body_over_the_limit(client: TestClient) -> None:
    exact = json.dumps({"name": "Acme", "slug": "acme"}).encode().ljust(64 * 1024)
    assert client.post("/api/sites", content=exact, headers=JSON).status_code == 202
    assert_error(client.post("/api/sites", content=exact + b" ", headers=JSON), 413, "request_too_large")


def test_body_over_the_limit_in_chunks(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    assert_error(client.post("/api/sites", content=chunks(), headers=JSON), 413, "request_too_large")


@pytest.mark.parametrize("path", ["cache/purge", "drift-check"])
def test_no_body_or_an_empty_one(control: Control, client: TestClient, path: str) -> None:
    _, environment = control.create_site("acme")
    url = f"/api/environments/{environment}/{path}"
    assert client.post(url).status_code == 202
    assert client.post(url, json={}).status_code == 202
    assert_error(client.post(url, json={"all": True}), 400, "invalid_request")


@pytest.mark.parametrize("path", ["sites/{}", "sites/{}/environments", "environments/{}", "jobs/{}"])
@pytest.mark.parametrize("id", ["x", "7", "acme", "%2e%2e", "00000000-0000-4000-8000-00000000000g", "' OR 1=1"])
def test_malformed_id(client: TestClient, path: str, id: str) -> None:
    message = assert_error(client.get("/api/" + path.format(id)), 400, "invalid_request")
    assert message.startswith("id: ")


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/nothing", "/api/sites/", "/nothing", "/", "/docs/x.js", "/%ff"]
)
def test_unknown_path(client: TestClient, path: str) -> None:
    assert_error(client.get(path), 404, "not_found")


@pytest.mark.parametrize(("method", "allow"), [("PUT", "GET, POST"), ("DELETE", "GET, POST"), ("OPTIONS", "GET, POST")])
def test_unknown_method(client: TestClient, method: str, allow: str) -> None:
    response = client.request(method, "/api/sites")
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allow
