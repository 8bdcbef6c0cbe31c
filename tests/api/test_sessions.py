"""Logging in and out: cookies, lives, and what nobody can do without a session."""

from __future__ import annotations

from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from tests.api.control import EMAIL, PASSWORD, Control, assert_error, log_in


def cookie_flags(header: str) -> dict[str, str]:
    return {name.lower(): value for name, _, value in (part.strip().partition("=") for part in header.split(";"))}


def test_login_opens_a_session(control: Control) -> None:
    client = control.client()
    response = log_in(client)
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert client.get("/api/sites").status_code == 200


def test_cookie_is_for_this_host_and_no_script(control: Control) -> None:
    flags = cookie_flags(log_in(control.client()).headers["set-cookie"])
    token = flags.pop("session_token")
    assert len(token) >= 32
    assert flags == {"httponly": "", "samesite": "strict", "path": "/", "max-age": "86400"}


@pytest.mark.parametrize(
    ("peer", "base_url", "proto", "secure"),
    [
        ("203.0.113.5", "https://testserver", None, True),
        ("127.0.0.1", "http://testserver", "https", True),
        ("127.0.0.1", "http://testserver", "http", False),
        ("203.0.113.5", "http://testserver", "https", False),
    ],
    ids=["tls", "trusted proxy says tls", "trusted proxy says http", "stranger says tls"],
)
def test_cookie_is_secure_when_the_request_came_by_tls(
    control: Control, peer: str, base_url: str, proto: str | None, secure: bool
) -> None:
    headers = {"X-Forwarded-Proto": proto} if proto else {}
    response = log_in(control.client(peer, base_url, **headers))
    assert ("secure" in cookie_flags(response.headers["set-cookie"])) is secure


def test_email_is_known_in_any_case(control: Control) -> None:
    assert log_in(control.client(), EMAIL.upper()).status_code == 200


@pytest.mark.parametrize(("email", "password"), [(EMAIL, "wrong"), ("nobody@example.com", PASSWORD), (EMAIL, "\ud800")])
def test_wrong_email_and_wrong_password_look_alike(control: Control, email: str, password: str) -> None:
    client = control.client()
    # A lone surrogate can be written in JSON and not in UTF-8.
    if password == "\ud800":
        body = b'{"email": "%s", "password": "\\ud800"}' % email.encode()
        assert client.post("/api/login", content=body, headers={"Content-Type": "application/json"}).status_code in {
            400,
            401,
        }
        return
    response = log_in(client, email, password)
    assert assert_error(response, 401, "unauthorized") == "Email or password is wrong."
    assert "set-cookie" not in response.headers


def test_logout_ends_the_session_on_the_server(control: Control) -> None:
    client = control.client()
    log_in(client)
    token = client.cookies["session_token"]
    response = client.post("/api/logout")
    assert (response.status_code, response.json()) == (200, {"success": True})
    flags = cookie_flags(response.headers["set-cookie"])
    assert (flags["session_token"], flags["max-age"]) == ('""', "0")
    stolen = control.client()
    stolen.cookies.set("session_token", token)
    assert_error(stolen.get("/api/sites"), 401, "unauthorized")


def test_session_ends_after_a_day(control: Control) -> None:
    client = control.client()
    log_in(client)
    control.clock.ahead = timedelta(hours=23, minutes=59)
    assert client.get("/api/sites").status_code == 200
    control.clock.ahead = timedelta(hours=24, seconds=1)
    assert_error(client.get("/api/sites"), 401, "unauthorized")


def test_new_password_ends_all_sessions(control: Control, client: TestClient) -> None:
    control.records.admins.set_password(EMAIL, "another long password", control.clock())
    assert_error(client.get("/api/sites"), 401, "unauthorized")


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "../../etc/passwd", "' OR 1=1 --"])
def test_made_up_token_is_no_session(control: Control, token: str) -> None:
    client = control.client()
    response = client.get("/api/sites", headers={"Cookie": f"session_token={token}"})
    assert_error(response, 401, "unauthorized")


def test_token_and_password_are_kept_as_hashes_only(control: Control) -> None:
    client = control.client()
    log_in(client)
    stored = (control.home / "trueup.db").read_bytes()
    assert client.cookies["session_token"].encode() not in stored
    assert PASSWORD.encode() not in stored
    assert b"$argon2id$" in stored


def test_logins_and_logouts_are_audited(control: Control) -> None:
    client = control.client("203.0.113.5")
    log_in(client, password="wrong")
    log_in(client)
    client.post("/api/logout")
    entries = [recorded.entry for recorded in control.records.audit.latest()]
    assert [(entry.operation, entry.outcome, entry.who, entry.source) for entry in reversed(entries)] == [
        ("login", "unauthorized", EMAIL, "203.0.113.5"),
        ("login", "done", EMAIL, "203.0.113.5"),
        ("logout", "done", EMAIL, "203.0.113.5"),
    ]
