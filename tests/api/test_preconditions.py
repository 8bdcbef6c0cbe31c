"""ETags: what a client has seen, and changes that are made to nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from httpx import Response
from starlette.testclient import TestClient

from tests.api.control import Control, assert_error
from tests.api.promotable import PLATFORM


@pytest.fixture
def environment(control: Control) -> UUID:
    _, environment = control.create_site("acme")
    control.set_status(environment, "active")
    return environment


def seen(client: TestClient, environment: UUID) -> str:
    return client.get(f"/api/environments/{environment}").headers["etag"]


def set_cache(client: TestClient, environment: UUID, if_match: str, on: bool = False) -> Response:
    url = f"/api/environments/{environment}/cache"
    return client.patch(url, json={"fastcgi_cache_enabled": on}, headers={"If-Match": if_match})


def test_a_change_of_what_was_seen(client: TestClient, environment: UUID) -> None:
    before = seen(client, environment)
    assert set_cache(client, environment, before).status_code == 202
    message = assert_error(set_cache(client, environment, before, on=True), 412, "precondition_failed")
    version = client.get(f"/api/environments/{environment}").json()["state_version"]
    assert f"state_version is {version}" in message
    assert set_cache(client, environment, f'"{version}"', on=True).status_code == 202
    assert set_cache(client, environment, "*").status_code == 202
    assert set_cache(client, environment, f'"0", {seen(client, environment)}').status_code == 202


def test_nothing_is_left_of_a_change_that_was_refused(control: Control, client: TestClient, environment: UUID) -> None:
    head, jobs = control.repository.head(), client.get("/api/jobs").json()
    assert_error(set_cache(client, environment, '"99-00000000"'), 412, "precondition_failed")
    assert (control.repository.head(), client.get("/api/jobs").json()) == (head, jobs)


@pytest.mark.parametrize("value", ['W/"{}"', '"x"', '"{}x"', '"{}-xyz"'])
def test_tags_that_match_nothing(client: TestClient, environment: UUID, value: str) -> None:
    tag = seen(client, environment).strip('"')
    assert_error(set_cache(client, environment, value.format(tag)), 412, "precondition_failed")


@pytest.mark.parametrize("value", ["7", "", '"7', '"7" "8"', "'7'"])
def test_headers_that_name_no_tag(client: TestClient, environment: UUID, value: str) -> None:
    assert_error(set_cache(client, environment, value), 400, "invalid_request")


def test_a_status_is_part_of_what_was_seen(control: Control, client: TestClient, environment: UUID) -> None:
    before = seen(client, environment)
    control.set_status(environment, "failed")
    assert_error(set_cache(client, environment, before), 412, "precondition_failed")


def test_jobs_that_declare_nothing_and_removals_hold_it_too(
    control: Control, client: TestClient, environment: UUID
) -> None:
    control.add({"platform.yaml": PLATFORM})
    site = client.get("/api/sites").json()[0]["id"]
    stale = {"If-Match": '"0"'}
    for path in (f"environments/{environment}/cache/purge", f"environments/{environment}/drift-check"):
        assert_error(client.post(f"/api/{path}", headers=stale), 412, "precondition_failed")
    gone = client.delete(f"/api/sites/{site}", params={"confirm": "acme"}, headers=stale)
    assert_error(gone, 412, "precondition_failed")
    etag = client.get(f"/api/sites/{site}").headers["etag"]
    assert (
        client.delete(f"/api/sites/{site}", params={"confirm": "acme"}, headers={"If-Match": etag}).status_code == 202
    )


def test_of_many_changes_at_once_of_what_all_saw_one_is_made(control: Control, environment: UUID) -> None:
    """Also those that end up in one group of commits. Each would change something: others may go first."""
    before = seen(control.session(), environment)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: set_cache(control.session(), environment, before, on=False), range(16)))
    assert sorted(answer.status_code for answer in answers) == [202] + [412] * 15


def test_a_push_in_between_counts(control: Control, client: TestClient, environment: UUID) -> None:
    before = seen(client, environment)
    control.push("sites/acme/environments/production.yaml", "spec:\n", "spec:\n  # by hand\n")
    assert_error(set_cache(client, environment, before), 412, "precondition_failed")


def test_unchanged_answers_are_not_sent_again(control: Control, client: TestClient, environment: UUID) -> None:
    url = f"/api/environments/{environment}"
    first = client.get(url)
    tag = first.headers["etag"]
    assert tag.startswith(f'"{first.json()["state_version"]}-')
    for known in (tag, f'"other", W/{tag}', "*"):
        again = client.get(url, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    set_cache(client, environment, "*")
    assert client.get(url, headers={"If-None-Match": tag}).status_code == 200
    site = f"/api/sites/{first.json()['site_id']}"
    assert client.get(site, headers={"If-None-Match": client.get(site).headers["etag"]}).status_code == 304
