"""The gates of a promotion at the API: both must be met, and nothing gets past them."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from httpx import Response

from tests.api.control import Control, assert_error
from tests.api.promotable import PLATFORM, back_up, compare, preview, staging_of


@pytest.fixture
def pair(control: Control) -> tuple[UUID, UUID]:
    """A staging environment and its production."""
    _, production = control.create_site("acme")
    control.set_status(production, "active")
    return staging_of(control, "acme"), production


def _promote(control: Control, source: UUID, target: UUID) -> Response:
    return control.session().post(f"/api/environments/{source}/promote", json={"target_environment_id": str(target)})


def test_both_gates_have_to_be_met(control: Control, pair: tuple[UUID, UUID]) -> None:
    assert "not compared" in assert_error(_promote(control, *pair), 409, "drift_gate_unmet")
    compare(control, *pair)
    assert "no full backup" in assert_error(_promote(control, *pair), 409, "backup_gate_unmet")
    back_up(control, pair[1])
    accepted = _promote(control, *pair)
    assert accepted.status_code == 202
    job = control.records.jobs.get(UUID(accepted.json()["job_id"]))
    assert (job.job_type, job.environment_id) == ("promote", pair[1])
    content = control.state.fleet().environment(pair[1]).manifest.spec.content
    assert content is not None
    assert (content.origin, content.source_environment, content.preset) == ("promote", pair[0], "commerce-protect")


def test_a_backup_grows_too_old(control: Control, pair: tuple[UUID, UUID]) -> None:
    compare(control, *pair)
    back_up(control, pair[1])
    control.clock.ahead = timedelta(minutes=60)
    assert_error(_promote(control, *pair), 409, "backup_gate_unmet")


def test_a_change_of_the_source_asks_for_another_check(control: Control, pair: tuple[UUID, UUID]) -> None:
    compare(control, *pair)
    back_up(control, pair[1])
    body = {"fastcgi_cache_enabled": False}
    assert control.session().patch(f"/api/environments/{pair[0]}/cache", json=body).status_code == 202
    assert "changed after" in assert_error(_promote(control, *pair), 409, "drift_gate_unmet")


def test_what_both_sides_changed_is_named(control: Control, pair: tuple[UUID, UUID]) -> None:
    both = {"counts": {"moves": 0, "stays": 0, "conflicts": 1}, "moves": [], "stays": [], "conflicts": ["blogname"]}
    compare(control, *pair, wp_options=both)
    back_up(control, pair[1])
    assert "wp_options: blogname" in assert_error(_promote(control, *pair), 409, "drift_gate_unmet")


def test_a_check_against_another_target_counts_for_nothing(control: Control, pair: tuple[UUID, UUID]) -> None:
    compare(control, pair[0], pair[0])
    back_up(control, pair[1])
    assert_error(_promote(control, *pair), 409, "drift_gate_unmet")


def test_production_is_not_promoted(control: Control, pair: tuple[UUID, UUID]) -> None:
    assert_error(_promote(control, pair[1], pair[0]), 409, "conflict")


def test_a_drill_may_be_asked_for(control: Control, pair: tuple[UUID, UUID]) -> None:
    asked = b"bucket: backups, drill: {required_for_promotion: true}}"
    control.add({"platform.yaml": PLATFORM.replace(b"bucket: backups}", asked)})
    compare(control, *pair)
    back_up(control, pair[1])
    assert "ever drilled" in assert_error(_promote(control, *pair), 409, "drill_gate_unmet")
    backup = control.records.backups.of(pair[1])[0]
    control.records.backups.drilled(backup.id, control.clock(), "Table wp_orders is missing.")
    assert "wp_orders is missing" in assert_error(_promote(control, *pair), 409, "drill_gate_unmet")
    listed = control.session().get(f"/api/environments/{pair[1]}/backups").json()[0]
    assert (listed["drill_status"], listed["drill_error"]) == ("failed", "Table wp_orders is missing.")
    control.records.backups.drilled(backup.id, control.clock(), None)
    assert _promote(control, *pair).status_code == 202


def test_a_drill_needs_a_completed_backup(control: Control, pair: tuple[UUID, UUID]) -> None:
    url = f"/api/environments/{pair[1]}/drill"
    assert "no completed backup" in assert_error(control.session().post(url), 409, "conflict")
    back_up(control, pair[1])
    jobs = [control.session().post(url).json()["job_id"] for _ in range(2)]
    assert jobs[0] == jobs[1], "one that waits stands for both"


def _previewed(control: Control, source: UUID, target: UUID) -> Response:
    return control.session().get(f"/api/environments/{source}/promotion", params={"target": str(target)})


def test_what_would_move_is_told_by_name(control: Control, pair: tuple[UUID, UUID]) -> None:
    unknown = _previewed(control, *pair).json()
    assert (unknown["preview"], unknown["checked_at"], unknown["job_id"]) == (None, None, None)
    assert (unknown["unmet"]["code"], "not compared" in unknown["unmet"]["message"]) == ("drift_gate_unmet", True)
    job_id = preview(control, *pair)
    told = _previewed(control, *pair).json()
    assert (told["job_id"], told["unmet"]["code"]) == (str(job_id), "backup_gate_unmet")
    assert told["preview"]["counts"]["left_behind"] == {"product": 21}
    assert told["preview"]["moves"][0]["name"] == "blogname"
    hat = told["preview"]["left_behind"][0]
    assert (hat["name"], hat["details"], hat["reason"]) == ("Hat \\x1b[31m", ["price"], "content")
    back_up(control, pair[1])
    assert _previewed(control, *pair).json()["unmet"] is None
    body = {"fastcgi_cache_enabled": False}
    control.session().patch(f"/api/environments/{pair[0]}/cache", json=body)
    later = _previewed(control, *pair).json()
    assert (later["unmet"]["code"], later["job_id"]) == ("drift_gate_unmet", str(job_id)), "it is told of when it is"


def test_a_preview_of_another_target_or_of_a_forgotten_job_is_none(control: Control, pair: tuple[UUID, UUID]) -> None:
    preview(control, pair[0], pair[0])
    assert _previewed(control, *pair).json()["preview"] is None
    compare(control, *pair)
    assert _previewed(control, *pair).json()["preview"] is None
    assert _previewed(control, pair[1], pair[0]).json()["unmet"]["code"] == "conflict"
    assert_error(_previewed(control, pair[0], uuid4()), 404, "not_found")
    asked = control.session().get(f"/api/environments/{pair[0]}/promotion")
    assert_error(asked, 400, "invalid_request")


def test_what_was_not_chosen_does_not_block_and_the_document_says_what_was(
    control: Control, pair: tuple[UUID, UUID]
) -> None:
    both = {"counts": {"moves": 0, "stays": 0, "conflicts": 1}, "moves": [], "stays": [], "conflicts": ["blogname"]}
    compare(control, *pair, wp_options=both)
    back_up(control, pair[1])
    url, target = f"/api/environments/{pair[0]}/promote", {"target_environment_id": str(pair[1])}

    def ask(**chosen: list[str]) -> Response:
        return control.session().post(url, json={**target, **chosen})

    assert_error(ask(), 409, "drift_gate_unmet")
    assert_error(ask(include=["option:blogname"]), 409, "drift_gate_unmet")
    assert_error(ask(exclude=["blogname"]), 400, "invalid_request")
    assert_error(ask(exclude=["plugin:../x"]), 400, "invalid_request")
    assert_error(ask(include=["group:links"], exclude=["group:links"]), 400, "invalid_request")
    assert ask(include=["plugin:hats"], exclude=["option:blogname"]).status_code == 202
    spec = control.state.fleet().environment(pair[1]).manifest.spec
    assert spec.content is not None
    assert (spec.content.include, spec.content.exclude) == (("plugin:hats",), ("option:blogname",))
    told = control.state.fleet().environment_variables(pair[1]).settings()["content"]
    assert (told["include"], told["exclude"]) == (["plugin:hats"], ["option:blogname"])
