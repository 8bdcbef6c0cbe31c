"""The JSON Schemas in ``contracts/schemas`` are those of the models, and the example store is whole.

``python -m tests.core.test_schemas`` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.core.entries import parse
from reconciler.core.fleet import assemble
from reconciler.core.manifests import Environment, Node, Platform, Site, json_schema
from reconciler.paths import share
from reconciler.store.documents import read

KINDS = (Platform, Node, Site, Environment)
SCHEMAS = share() / "contracts" / "schemas"


def _text(kind: type) -> str:
    return json.dumps(json_schema(kind), indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_schema_is_that_of_the_model(kind: type) -> None:
    assert (SCHEMAS / f"{kind.__name__.lower()}.json").read_text() == _text(kind), (
        "run `python -m tests.core.test_schemas`"
    )


def test_example_store_is_whole() -> None:
    top = share() / "desired-state"
    paths = [path.relative_to(top) for path in sorted(top.rglob("*.yaml"))]
    documents = [read(str(path), (top / path).read_bytes()) for path in paths]
    fleet = assemble("", [parse(item) if hasattr(item, "data") else item for item in documents])
    assert fleet.stalled == ()
    assert [environment.key for environment in fleet.environments.values()] == ["acme/production"]


def test_every_example_names_its_schema() -> None:
    top = share() / "desired-state"
    for path in top.rglob("*.yaml"):
        reference = path.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / reference).resolve().parent == SCHEMAS.resolve(), path


if __name__ == "__main__":
    for kind in KINDS:
        Path(SCHEMAS / f"{kind.__name__.lower()}.json").write_text(_text(kind))
