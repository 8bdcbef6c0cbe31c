"""The contract as tests read it: operations, schemas, and what isn't built yet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENT: dict[str, Any] = YAML(typ="safe").load((ROOT / "contracts" / "openapi.yaml").read_text(encoding="utf-8"))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]

NOT_YET: frozenset[str] = frozenset()
"""Operations of the contract that later milestones build. Only shrinks."""

_METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class Operation:
    """One operation of the contract, references resolved one level deep."""

    method: str
    path: str
    spec: dict[str, Any]
    parameters: tuple[dict[str, Any], ...]

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def url(self) -> str:
        """As the app routes it."""
        return "/api" + self.path

    @property
    def is_open(self) -> bool:
        """Needs no session."""
        return self.spec.get("security") == []

    @property
    def has_id(self) -> bool:
        return "{id}" in self.path

    def takes(self, name: str) -> bool:
        """Whether it has a parameter of that name."""
        return any(parameter["name"] == name for parameter in self.parameters)

    @property
    def request_schema(self) -> dict[str, Any] | None:
        body = self.spec.get("requestBody")
        return resolve(body["content"][self.media_type]["schema"]) if body else None

    @property
    def media_type(self) -> str:
        """Of the request's body; JSON where there is none."""
        body = self.spec.get("requestBody")
        return next(iter(body["content"])) if body else "application/json"

    @property
    def responses(self) -> dict[int, dict[str, Any]]:
        return {int(status): resolve(response) for status, response in self.spec["responses"].items()}

    @property
    def success(self) -> int:
        return next(status for status in self.responses if status < 300)

    def response_schema(self, status: int) -> dict[str, Any]:
        """The body's schema, references kept."""
        schema: dict[str, Any] = self.responses[status]["content"]["application/json"]["schema"]
        return schema


def resolve(item: dict[str, Any]) -> dict[str, Any]:
    """What ``$ref`` points to, or the item itself."""
    if "$ref" not in item:
        return item
    found: Any = DOCUMENT
    for part in item["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    resolved: dict[str, Any] = resolve(found)
    return resolved


def operations() -> Iterator[Operation]:
    """All of the contract, built or not."""
    for path, item in DOCUMENT["paths"].items():
        shared = item.get("parameters", [])
        for method in _METHODS:
            if method in item:
                spec = item[method]
                parameters = tuple(resolve(one) for one in (*shared, *spec.get("parameters", [])))
                yield Operation(method.upper(), path, spec, parameters)


def built() -> list[Operation]:
    """Those that the app must have."""
    return [operation for operation in operations() if operation.key not in NOT_YET]


def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """A validator of this schema with the document's components in reach, formats checked."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading of a page in ``docs``, markup removed."""
    _, found, after = ("\n" + (DOCS / page).read_text(encoding="utf-8")).partition(f"\n{heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    rows: list[list[str]] = []
    for line in after.splitlines():
        if line.startswith("|"):
            rows.append([re.sub(r"[`*]", "", cell).strip() for cell in line.strip("|").split("|")])
        elif rows or line.startswith("#"):
            break
    return rows[2:]


def words(cell: str) -> list[str]:
    """The comma-separated words of a table's cell."""
    return [word.strip() for word in cell.split(",")]


def as_json(schema: object) -> str:
    return json.dumps(schema, sort_keys=True, indent=1)
