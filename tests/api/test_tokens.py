"""Bearer tokens: beside the cookie everywhere, told apart in the log, and no easier to guess than passwords."""

from __future__ import annotations

from datetime import timedelta

from starlette.testclient import TestClient

from tests.api.control import EMAIL, Control, assert_error, control_at, log_in

SITE = {"name": "Acme", "slug": "acme"}


def bearer(control: Control, secret: str, **headers: str) -> TestClient:
    return control.client(Authorization=f"Bearer {secret}", **headers)


def make(control: Control, name: str = "deploy-ci", **given: object) -> str:
    return control.records.tokens.create(name, "grace@localhost", control.clock(), **given)  # type: ignore[arg-type]


def test_it_does_what_the_admin_does_and_is_named(control: Control) -> None:
    client = bearer(control, make(control))
    job_id = client.post("/api/sites", json=SITE).json()["job_id"]
    assert [site["slug"] for site in client.get("/api/sites").json()] == ["acme"]
    entry = control.records.audit.latest()[0].entry
    assert (entry.who, entry.operation, str(entry.job_id)) == ("token+deploy-ci@localhost", "site-create", job_id)
    head = control.repository.head()
    author = control.repository._objects.ask("log", "-1", "--format=%an <%ae>", head).decode().strip()
    assert author == "deploy-ci <token+deploy-ci@localhost>"


def test_a_read_only_one_may_look_and_do_nothing(control: Control) -> None:
    control.create_site("acme")
    client = bearer(control, make(control, read_only=True))
    site = client.get("/api/sites").json()[0]
    assert_error(client.post("/api/sites", json={"name": "B", "slug": "b"}), 403, "read_only_token")
    assert_error(client.delete(f"/api/sites/{site['id']}", params={"confirm": "acme"}), 403, "read_only_token")
    assert client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 200
    assert len(client.get("/api/jobs").json()) == 1


def test_wrong_revoked_and_expired_ones_are_refused(control: Control) -> None:
    soon = control.clock() + timedelta(hours=1)
    expiring, revoked = make(control, "short", expires_at=soon), make(control, "gone")
    assert bearer(control, expiring).get("/api/sites").status_code == 200
    control.records.tokens.revoke("gone", control.clock())
    control.clock.ahead = timedelta(hours=1)
    for secret in (expiring, revoked, "trueup_nothing"):
        assert_error(bearer(control, secret).get("/api/sites"), 401, "unauthorized")


def test_where_a_token_is_sent_the_cookie_does_not_count(control: Control) -> None:
    client = control.session()
    client.headers["Authorization"] = "Bearer trueup_wrong"
    assert_error(client.get("/api/sites"), 401, "unauthorized")
    client.headers["Authorization"] = "Basic YTpi"
    assert client.get("/api/sites").status_code == 200


def test_it_has_no_session_to_end(control: Control) -> None:
    assert_error(bearer(control, make(control)).post("/api/logout"), 401, "unauthorized")


def test_no_origin_is_asked_for_because_no_page_can_send_one(control: Control) -> None:
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert bearer(control, make(control), **foreign).post("/api/sites", json=SITE).status_code == 202
    client = control.session()
    client.headers.update({**foreign, "Authorization": "Bearer trueup_wrong"})
    assert_error(client.post("/api/sites", json={"name": "B", "slug": "b"}), 401, "unauthorized")
    preflight = control.client().options(
        "/api/sites", headers={**foreign, "Access-Control-Request-Headers": "authorization"}
    )
    assert_error(preflight, 405, "method_not_allowed")


def test_guessing_is_slowed_per_source_and_a_restart_forgets_nothing(control: Control) -> None:
    secret = make(control)
    control.clock.stopped_at = moment = control.clock()
    guesses = [bearer(control, f"trueup_{n}").get("/api/sites").status_code for n in range(8)]
    assert guesses[:5] == [401] * 5
    assert set(guesses[5:]) == {429}
    with control_at(control.home) as restarted:
        restarted.clock.stopped_at = moment
        response = bearer(restarted, secret).get("/api/sites")
        assert_error(response, 429, "too_many_attempts")
        restarted.clock.ahead = timedelta(seconds=int(response.headers["retry-after"]) + 1)
        assert bearer(restarted, secret).get("/api/sites").status_code == 200
    assert log_in(control.client("203.0.113.7")).status_code == 200, "another source is not slowed"


def test_it_cannot_be_used_for_another_session(control: Control) -> None:
    make(control)
    assert control.records.tokens.lookup(EMAIL, control.clock()) is None
