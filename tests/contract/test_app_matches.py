"""The application's operations against the contract's, both ways, by the schema that its own code amounts to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.routing import BaseRoute

from tests.api.control import Control, control_at
from tests.contract.document import DOCUMENT, NOT_YET, Operation, as_json, built, resolve

SERVED_AS_IT_IS = "GET /openapi.json"
"""The document itself; it has no model."""
BUILT = [operation for operation in built() if operation.key != SERVED_AS_IT_IS]
by_key = pytest.mark.parametrize("operation", BUILT, ids=lambda operation: operation.key)

# Said in words or checked alike by both, but written differently by the two.
_UNTOLD = {"title", "description", "default", "format", "example", "examples", "contentMediaType"}


@pytest.fixture(scope="module")
def generated(fresh_home: Path) -> dict[str, Any]:
    """What FastAPI makes of the routes; never served."""
    with control_at(fresh_home) as control:
        return control.app.openapi()


def generated_operation(generated: dict[str, Any], operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = generated["paths"][operation.url][operation.method.lower()]
    return found


def test_the_app_has_the_contracts_operations_and_no_others(generated: dict[str, Any]) -> None:
    routed = {
        f"{method.upper()} {path.removeprefix('/api')}" for path, item in generated["paths"].items() for method in item
    }
    assert routed == {operation.key for operation in BUILT}


def test_nothing_under_api_is_routed_that_the_generated_schema_hides(control: Control) -> None:
    def paths(routes: list[BaseRoute]) -> set[str]:
        found: set[str] = set()
        for route in routes:
            inner = getattr(route, "original_router", None) or getattr(route, "app", None)
            found |= paths(inner.routes) if hasattr(inner, "routes") else {getattr(route, "path", "")}
        return found

    hidden = {path for path in paths(control.app.routes) if path.startswith("/api")}
    assert "/api/openapi.json" in hidden
    assert hidden <= {operation.url for operation in built()} | {"/api/openapi.json"}


def test_all_of_the_contract_is_built() -> None:
    assert frozenset() == NOT_YET


@by_key
def test_parameters(generated: dict[str, Any], operation: Operation) -> None:
    def told(parameters: Any) -> set[tuple[str, str, bool, str]]:
        return {
            (one["name"], one["in"], one.get("required", False), _given(one["schema"]).get("format", ""))
            for one in parameters
        }

    def _given(schema: dict[str, Any]) -> dict[str, Any]:
        """What it is where it is given: FastAPI says of what may be left out that it may be null."""
        choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
        if choices:
            return _resolved_in(generated, choices[0]) | {key: schema[key] for key in ("format",) if key in schema}
        return resolve(schema)

    assert told(generated_operation(generated, operation).get("parameters", [])) == told(operation.parameters)


@by_key
def test_security(generated: dict[str, Any], operation: Operation) -> None:
    needed = generated_operation(generated, operation).get("security", [])
    assert needed == operation.spec.get("security", DOCUMENT["security"])
    if needed:
        scheme = generated["components"]["securitySchemes"]["session"]
        assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "cookie", "session_token")
    if {"bearer": []} in needed:
        scheme = generated["components"]["securitySchemes"]["bearer"]
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


@by_key
def test_request_body(generated: dict[str, Any], operation: Operation) -> None:
    body = generated_operation(generated, operation).get("requestBody")
    assert (body is None) == (operation.request_schema is None)
    if body is None or operation.request_schema is None:
        return
    assert body.get("required", False) is operation.spec["requestBody"]["required"]
    assert list(body["content"]) == [operation.media_type]
    ours = plain(body["content"][operation.media_type]["schema"], generated)
    if not body.get("required", False):
        # FastAPI says of a body that may be left out that null will do, too; test_answers sends that.
        ours["anyOf"].remove({"type": "null"})
        (ours,) = ours["anyOf"]
    # Pydantic's schema cannot say that one of two optional fields must be there; test_answers sends none.
    theirs = plain(operation.request_schema) | ({"minProperties": None} if operation.path.endswith("/cache") else {})
    theirs = {key: value for key, value in theirs.items() if value is not None}
    assert as_json(ours) == as_json(theirs)


@by_key
def test_successful_response(generated: dict[str, Any], operation: Operation) -> None:
    responses = generated_operation(generated, operation)["responses"]
    successes = {int(status) for status in responses if status.startswith("2")}
    assert successes == {operation.success}
    answered = responses[str(operation.success)]["content"]["application/json"]["schema"]
    ours, theirs = plain(answered, generated), plain(operation.response_schema(operation.success))
    assert as_json(shape(ours)) == as_json(shape(theirs))


def _resolved_in(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return _resolved(schema["$ref"], document) if "$ref" in schema else schema


def plain(schema: Any, document: dict[str, Any] | None = None) -> Any:
    """A schema without references, words and order, so that two ways to write it are one."""
    if isinstance(schema, list):
        return [plain(one, document) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = _resolved(schema["$ref"], document)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return {"anyOf": sorted((plain(one, document) for one in choices), key=as_json)}
    if isinstance(schema.get("type"), list):
        return {"anyOf": sorted(({**_told(schema), "type": one} for one in schema["type"]), key=as_json)}
    told = {key: plain(value, document) for key, value in _told(schema).items() if key != "properties"}
    if "properties" in schema:
        told["properties"] = {name: plain(one, document) for name, one in schema["properties"].items()}
    return told


def _told(schema: dict[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in schema.items() if key not in _UNTOLD and not key.startswith("x-")}
    return {key: sorted(value) if key in {"required", "enum"} else value for key, value in told.items()}


def _resolved(reference: str, document: dict[str, Any] | None) -> dict[str, Any]:
    if document is None:
        return resolve({"$ref": reference})
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    resolved: dict[str, Any] = found
    return resolved


def shape(schema: Any) -> Any:
    """What a program relies on in an answer: fields, which are always there, types, values. Not limits."""
    if isinstance(schema, list):
        return [shape(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: shape(schema[key]) for key in ("type", "items", "required", "enum", "const", "anyOf") if key in schema}
    if "additionalProperties" in schema:
        kept["additionalProperties"] = shape(schema["additionalProperties"])
    if "properties" in schema:
        kept["properties"] = {name: shape(one) for name, one in schema["properties"].items()}
    return kept
