"""The document in itself: valid, complete, and consistent from operation to operation."""

from __future__ import annotations

import json

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.contract.document import DOCUMENT, NOT_YET, ROOT, SCHEMAS, Operation, operations, resolve

ALL = list(operations())
HOOK = "/hooks/{forge}"
"""What a forge sends: signed in place of a session, in a form that is the forge's, and no request of work."""
by_key = pytest.mark.parametrize("operation", ALL, ids=lambda operation: operation.key)


def test_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert DOCUMENT["openapi"].startswith("3.1")
    assert DOCUMENT["servers"] == [{"url": "/api"}]


def test_error_schema_is_the_shared_one() -> None:
    shared = json.loads((ROOT / "contracts" / "schemas" / "error.json").read_text(encoding="utf-8"))
    del shared["$schema"], shared["title"]
    assert SCHEMAS["Error"] == shared


def test_operation_ids_are_unique() -> None:
    ids = [operation.spec["operationId"] for operation in ALL]
    assert len(ids) == len(set(ids))


def test_not_yet_names_only_operations_of_the_contract() -> None:
    assert {operation.key for operation in ALL} >= NOT_YET


@by_key
def test_every_error_is_code_and_message(operation: Operation) -> None:
    for status in operation.responses:
        if status >= 400:
            assert operation.response_schema(status) == {"$ref": "#/components/schemas/Error"}, status


@by_key
def test_every_error_that_applies_is_named(operation: Operation) -> None:
    writes = operation.method != "GET"
    has_body = operation.request_schema is not None
    expected = {
        401: not operation.is_open or operation.path in {"/login", HOOK},
        404: operation.has_id or operation.path == HOOK,
        400: operation.has_id or writes or operation.takes("cursor"),
        403: writes,
        413: writes,
        409: writes and operation.path not in {"/login", "/logout", HOOK},
        412: operation.takes("If-Match"),
        422: operation.takes("Idempotency-Key"),
        429: operation.path == "/login" or {"bearer": []} in operation.spec.get("security", DOCUMENT["security"]),
        500: True,
    }
    named = {status: status in operation.responses for status in expected}
    assert named == expected
    assert has_body <= writes


@by_key
def test_changes_take_a_key_and_changes_of_what_has_a_version_a_precondition(operation: Operation) -> None:
    writes = operation.method != "GET"
    secret = operation.path.endswith(("/login", "/logout", "/magic-login", HOOK))
    assert operation.takes("Idempotency-Key") == (writes and not secret)
    versioned = operation.path.startswith(("/sites/{id}", "/environments/{id}"))
    assert operation.takes("If-Match") == (writes and not secret and versioned)


@by_key
def test_lists_come_in_parts(operation: Operation) -> None:
    answered = operation.responses[operation.success].get("content", {}).get("application/json", {}).get("schema", {})
    is_list = answered.get("type") == "array" and operation.key not in {*NOT_YET, "GET /jobs/{id}/events"}
    assert operation.takes("limit") == operation.takes("cursor") == is_list
    assert ("Link" in operation.responses[operation.success].get("headers", {})) == is_list


@by_key
def test_accepted_work_answers_202_with_job_and_location(operation: Operation) -> None:
    synchronous = operation.method == "GET" or operation.path.endswith(
        ("/login", "/logout", "/magic-login", "/held/release")
    )
    made_at_once = operation.path in {"/uploads", "/environments/{id}/drift/adopt/branch"}
    assert operation.success == (200 if synchronous else 201 if made_at_once else 202)
    if operation.success == 202 and operation.path != HOOK:
        assert operation.response_schema(202) == {"$ref": "#/components/schemas/JobAccepted"}
        assert resolve(operation.responses[202]["headers"]["Location"])["required"] is True


@by_key
def test_request_bodies_refuse_unknown_fields(operation: Operation) -> None:
    schema = operation.request_schema
    if schema and operation.media_type == "application/json" and operation.path != HOOK:
        assert schema["additionalProperties"] is False


@pytest.mark.parametrize("name", [name for name in SCHEMAS if "required" in SCHEMAS[name] and "Request" not in name])
def test_answers_have_all_their_fields_always(name: str) -> None:
    assert SCHEMAS[name]["required"] == list(SCHEMAS[name]["properties"])
