"""Changes move up through the API: gates first, then code and settings, and nothing that customers made."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from reconciler.records.backups import Backup
from tests.place import Place

pytestmark = pytest.mark.lab


def _option(place: Place, environment: dict[str, Any], name: str) -> str:
    return place.sql(environment, f"SELECT option_value FROM wp_options WHERE option_name = '{name}'")


def _put(place: Place, environment: dict[str, Any], name: str, value: str) -> None:
    place.sql(
        environment,
        f"INSERT INTO wp_options (option_name, option_value) VALUES ('{name}', '{value}') "
        f"ON DUPLICATE KEY UPDATE option_value = '{value}'",
    )


@pytest.fixture(scope="module")
def pair(place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    """A staging environment and the production that it was copied from."""
    production = place.make_site("moving")
    place.page(production)
    body = {"name": "Staging", "slug": "staging", "type": "staging", "promotion_preset": "content-protect"}
    job = place.run(place.plane.http.post(f"/api/sites/{production['site_id']}/environments", json=body))
    assert job["status"] == "succeeded", job
    return place.plane.http.get(f"/api/environments/{job['environment_id']}").json(), production


def _check(place: Place, environment: dict[str, Any]) -> str:
    job = place.run(place.plane.http.post(f"/api/environments/{environment['id']}/drift-check"))
    assert job["status"] == "succeeded", job
    return str(place.plane.http.get(f"/api/environments/{environment['id']}").json()["drift_status"])


def _promote(place: Place, pair: tuple[dict[str, Any], dict[str, Any]]) -> Any:
    body = {"target_environment_id": pair[1]["id"]}
    return place.plane.http.post(f"/api/environments/{pair[0]['id']}/promote", json=body)


@pytest.mark.long
def test_a_check_names_what_both_sides_changed(place: Place, pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    staging, production = pair
    assert _promote(place, pair).json()["code"] == "drift_gate_unmet"
    _put(place, staging, "blogdescription", "one")
    assert _check(place, staging) == "clean"
    assert _promote(place, pair).json()["code"] == "backup_gate_unmet"
    _put(place, production, "blogdescription", "another")
    assert _check(place, staging) == "drifted"
    refused = _promote(place, pair)
    assert (refused.status_code, refused.json()["code"]) == (409, "drift_gate_unmet")
    assert "wp_options: blogdescription" in refused.json()["message"]
    _put(place, production, "blogdescription", "one")
    place.sql(staging, "UPDATE wp_posts SET post_title = 'About us' WHERE ID = 2")
    assert _check(place, staging) == "clean"
    told = place.plane.http.get(
        f"/api/environments/{staging['id']}/promotion", params={"target": production["id"]}
    ).json()
    assert told["unmet"]["code"] == "backup_gate_unmet"
    left = [(one["kind"], one["name"], one["details"]) for one in told["preview"]["left_behind"]]
    assert left == [("page", "About us", ["title"])]
    assert not [one for one in told["preview"]["moves"] if one["name"] == "blogdescription"], "both have it by now"
    result = place.plane.http.get(f"/api/jobs/{told['job_id']}").json()["result"]
    assert result["promotion"] == told["preview"]
    shown = place.plane.command("promote", "moving/staging", "moving/production", "--preview", "-o", "json")
    assert [one["name"] for one in json.loads(shown.stdout)["preview"]["left_behind"]] == ["About us"]


@pytest.fixture
def storage(place: Place) -> Iterator[None]:
    """A platform that names storage."""
    before = place.plane.clone.read("platform.yaml")
    place.plane.clone.push(
        {
            "platform.yaml": "apiVersion: trueup/v1\nkind: Platform\nspec:\n"
            "  backups: {endpoint: 'http://127.0.0.1:9', bucket: backups}\n"
        }
    )
    yield
    place.plane.clone.push({"platform.yaml": before})


@pytest.mark.long
@pytest.mark.usefixtures("storage")
def test_code_and_settings_move_and_comments_stay(place: Place, pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    staging, production = pair
    _put(place, staging, "blogname", "Renamed in staging")
    _put(place, production, "only_in_production", "stays")
    place.sql(staging, "INSERT INTO wp_comments (comment_author, comment_content) VALUES ('x', 'of staging')")
    place.sql(production, "INSERT INTO wp_comments (comment_author, comment_content) VALUES ('x', 'of a visitor')")
    plugins = f"/var/www/sites/{staging['id']}/current/wp-content/plugins"
    place.node_of(staging).ssh(["tee", f"{plugins}/moved.php"], input="<?php /* Plugin Name: Moved */")
    assert _check(place, staging) in {"clean", "drifted"}
    now = datetime.now(UTC)
    taken = Backup(
        id=uuid4(),
        environment_id=UUID(production["id"]),
        backup_scope="full",
        status="completed",
        created_at=now,
        completed_at=now,
    )
    with place.plane.opened() as home:
        home.records.backups.save(taken)
    job = place.run(_promote(place, pair))
    assert job["status"] == "succeeded", job
    assert _option(place, production, "blogname") == "Renamed in staging"
    assert _option(place, production, "only_in_production") == "stays"
    comments = place.sql(production, "SELECT comment_content FROM wp_comments")
    assert "of a visitor" in comments
    assert "of staging" not in comments
    place.node_of(production).ssh(["test", "-f", plugins.replace(staging["id"], production["id"]) + "/moved.php"])
    assert "Renamed in staging" in place.page(production).text
    assert _check(place, staging) in {"clean", "drifted"}
