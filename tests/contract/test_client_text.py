"""The client's own text: unchanged in our copy, and all of it in the document."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.contract.document import DOCS, SCHEMAS, Operation, operations, resolve

CLIENT_TEXT_SHA256 = "9761ed9fc92295d61a453fc8a59f6e178f42e1bea7f461d0b6c1b25f4e0d608f"
CLIENT, _, ADDITIONS = (
    (DOCS / "api-contract.md").read_text(encoding="utf-8").partition("\n---\n\n# Additions by Trueup\n")
)


@dataclass(frozen=True)
class Told:
    """An endpoint as the client's text tells it; None where it tells nothing."""

    key: str
    body: frozenset[str] | None
    response: frozenset[str] | None
    values: tuple[tuple[str, tuple[str, ...]], ...]


def _told() -> Iterator[Told]:
    endpoints = CLIENT.partition("## Endpoints")[2].partition("## Deferred")[0]
    for chunk in re.split(r"^- (?=`[A-Z]+ /api/)", endpoints, flags=re.M)[1:]:
        method, path = re.match(r"`([A-Z]+) /api([^`]*)`", chunk).groups()  # type: ignore[union-attr]
        yield Told(
            f"{method} {path.replace(':id', '{id}')}",
            _fields(chunk, "Body"),
            _fields(chunk, "Response"),
            _values(chunk),
        )


def _fields(chunk: str, label: str) -> frozenset[str] | None:
    match = re.search(rf"- {label}: `{{([^}}]*)}}`", chunk)
    return frozenset(re.findall(r"(?:^|,)\s*([a-z_]+)", match[1])) if match else None


def _values(chunk: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    lines = re.findall(r"^\s+- ([a-z_]+): `([a-z]+(?: \| [a-z]+)+)`", chunk, flags=re.M)
    return tuple((name, tuple(values.split(" | "))) for name, values in lines)


TOLD = list(_told())
OPERATIONS = {operation.key: operation for operation in operations()}


def test_our_copy_is_the_clients_text_word_for_word() -> None:
    assert ADDITIONS
    assert hashlib.sha256(CLIENT.encode()).hexdigest() == CLIENT_TEXT_SHA256


def test_the_document_has_the_clients_operations_and_marks_all_others() -> None:
    ours = {key for key, operation in OPERATIONS.items() if operation.spec.get("x-trueup-addition")}
    assert len(TOLD) == 25
    assert {told.key for told in TOLD} == OPERATIONS.keys() - ours


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told.key)
def test_fields_and_values_are_the_clients(told: Told) -> None:
    operation = OPERATIONS[told.key]
    request = operation.request_schema
    assert (told.body is None) == (request is None)
    if told.body is not None and request is not None:
        ours = {name for name, field in request["properties"].items() if field.get("x-trueup-addition")}
        assert request["properties"].keys() - ours == told.body
        assert not ours & set(request.get("required", ()))
    for name, values in told.values:
        assert request is not None
        assert tuple(resolve(request["properties"][name])["enum"]) == values
    if told.response is not None:
        # A job answers more than the client lists: the whole record.
        answered = _success(operation)["properties"].keys()
        assert answered >= told.response
        assert answered == told.response or told.key == "GET /jobs/{id}"


def _success(operation: Operation) -> dict[str, dict[str, object]]:
    return resolve(operation.response_schema(operation.success))


def test_magic_login_names_the_clients_errors() -> None:
    responses = OPERATIONS["POST /environments/{id}/magic-login"].responses
    codes = set(re.findall(r"^    - `([a-z_]+)` — ", CLIENT, flags=re.M))
    assert codes == {"environment_not_active", "node_unreachable", "wp_cli_error"}
    assert responses[409]["content"]["application/json"]["example"]["code"] == "environment_not_active"
    assert all(code in responses[502]["description"] for code in ("node_unreachable", "wp_cli_error"))


def test_cache_needs_at_least_one_field() -> None:
    assert SCHEMAS["CacheRequest"]["minProperties"] == 1
    assert "required" not in SCHEMAS["CacheRequest"]
