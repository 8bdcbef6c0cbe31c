"""Options that were set in WordPress: adopted by a commit alone, set back by a job alone."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID, uuid4

import pytest
from httpx import Response

from reconciler.core.changes import Cause, Change
from reconciler.core.options import with_values
from reconciler.records.drift import DriftCheck
from tests.api.control import Control, assert_error
from tests.api.promotable import PLATFORM

DOCUMENT = b"""apiVersion: trueup/v1
kind: Environment
spec:
  type: production
  node: web-1
  options:
    blogname: Acme  # as the contract calls it
    posts_per_page: 7
"""
PATH = "sites/acme/environments/production.yaml"


@pytest.fixture
def environment(control: Control) -> UUID:
    control.create_site("acme")
    control.add({PATH: DOCUMENT, "platform.yaml": PLATFORM})
    [environment] = control.state.fleet().environments.values()
    control.set_status(environment.id, "active")
    return environment.id


def _found(control: Control, environment: UUID, *changes: Change, **options: str | None) -> None:
    """A drift check of now."""
    changes += tuple(Change(f"options.{name}", "", str(value), Cause.NODE_TOUCHED) for name, value in options.items())
    differences = tuple(with_values(asdict(change), options) for change in changes)
    control.records.drift_checks.save(
        DriftCheck(
            id=uuid4(),
            environment_id=environment,
            status="drifted",
            differences=differences,
            created_at=control.clock(),
        )
    )


def _ask(control: Control, environment: UUID, verb: str) -> Response:
    return control.session().post(f"/api/environments/{environment}/drift/{verb}")


def _text(control: Control) -> str:
    return (control.repository.content(PATH, control.repository.head()) or b"").decode()


@pytest.mark.parametrize("verb", ["adopt", "discard"])
def test_where_nothing_was_found_there_is_nothing_to_do(control: Control, environment: UUID, verb: str) -> None:
    assert "was not looked at" in assert_error(_ask(control, environment, verb), 409, "conflict")
    _found(control, environment)
    found = assert_error(_ask(control, environment, verb), 409, "conflict")
    assert "no code and no declared option" in found


def test_options_are_adopted_by_the_document_alone(control: Control, environment: UUID) -> None:
    _found(control, environment, blogname="Spike", posts_per_page=None)
    accepted = _ask(control, environment, "adopt")
    assert accepted.status_code == 202, accepted.text
    job = control.records.jobs.get(UUID(accepted.json()["job_id"]))
    assert (job.job_type, job.intent["operation"] if job.intent else None) == ("drift-adopt", "adopt_options")
    expected = DOCUMENT.decode().replace("Acme", "Spike").replace("    posts_per_page: 7\n", "")
    assert _text(control) == expected


def test_options_go_along_with_code(control: Control, environment: UUID) -> None:
    code = Change("release wp-content/plugins/by-hand/", "absent", "unknown", Cause.NODE_TOUCHED, heals=False)
    _found(control, environment, code, blogname="Spike")
    accepted = _ask(control, environment, "adopt")
    assert accepted.status_code == 202, accepted.text
    spec = control.state.fleet().environment(environment).manifest.spec
    assert spec.release
    assert (spec.release.origin, spec.options) == ("adopt", {"blogname": "Spike", "posts_per_page": "7"})


def test_options_are_set_back_without_a_commit(control: Control, environment: UUID) -> None:
    _found(control, environment, blogname="Spike")
    accepted = _ask(control, environment, "discard")
    assert accepted.status_code == 202, accepted.text
    job = control.records.jobs.get(UUID(accepted.json()["job_id"]))
    assert (job.job_type, job.declared, job.revision) == ("drift-discard", False, None)
    assert job.intent
    assert (job.intent["deliberate"], job.intent["options"]) == (True, ["blogname"])
    assert _text(control) == DOCUMENT.decode()


def test_what_no_document_can_hold_is_refused(control: Control, environment: UUID) -> None:
    _found(control, environment, blogname='a:1:{i:0;s:1:"x";}')
    found = assert_error(_ask(control, environment, "adopt"), 409, "conflict")
    assert "Option blogname of acme/production cannot be adopted" in found
    assert _text(control) == DOCUMENT.decode()
