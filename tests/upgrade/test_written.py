"""What 503e1c5 wrote is read as it was meant: digests of variables byte by byte, and manifests on nodes.

`written/` is what that commit made, and no later one writes there: see CONTRIBUTING.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler.core.changes import Cause, diff_environment, diff_node
from reconciler.core.observed import Applied, ObservedEnvironment, ObservedNode, Service
from reconciler.core.variables import EnvironmentVariables, NodeVariables, digest_of
from tests.core.documents import fleet_of
from tests.playbooks.node_modules import load

WRITTEN = Path(__file__).with_name("written")
DIGESTS: dict[str, str] = json.loads((WRITTEN / "digests.json").read_text())
RUNNING = Service(active="active", enabled="enabled")


def _manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WRITTEN / name).read_text())
    return found


def _variables() -> dict[str, NodeVariables | EnvironmentVariables]:
    fleet = fleet_of(YAML(typ="safe").load(WRITTEN / "documents.yaml"))
    assert fleet.stalled == ()
    found: dict[str, NodeVariables | EnvironmentVariables] = {
        f"nodes/{node.slug}": fleet.node_variables(node.id) for node in fleet.nodes.values()
    }
    return found | {f"sites/{one.key}": fleet.environment_variables(one.id) for one in fleet.environments.values()}


VARIABLES = _variables()


def test_every_document_has_its_digest() -> None:
    assert VARIABLES.keys() == DIGESTS.keys()


@pytest.mark.parametrize("key", DIGESTS)
def test_the_variables_digest_is_the_same(key: str) -> None:
    """Another one, and the whole fleet is reconciled as if its documents had changed."""
    assert VARIABLES[key].digest() == DIGESTS[key]


@pytest.mark.parametrize("key", DIGESTS)
def test_so_is_the_one_that_is_made_on_nodes(key: str) -> None:
    settings = {**VARIABLES[key].settings(), "job": {"id": "of no matter", "fence": 1}}
    assert load("digest").variables_digest(settings) == DIGESTS[key]


def _as_left(applied: Applied) -> dict[str, Any]:
    """Observed just as it was applied."""
    return {
        "applied": applied,
        "files": applied.files,
        "links": applied.links,
        "services": dict.fromkeys(applied.services, RUNNING),
    }


def test_an_environments_manifest_is_understood() -> None:
    applied = Applied.model_validate(_manifest("environment.json"))
    variables = EnvironmentVariables.model_validate(applied.variables)
    assert variables.digest() == digest_of(applied.variables) == applied.digest
    there = ObservedEnvironment(**_as_left(applied), database=True, options={**applied.options})
    assert diff_environment(variables, applied.role_digest, there) == ()
    (change,) = diff_environment(variables, "another", there)
    assert (change.field, change.cause) == ("role", Cause.UPGRADED)


def test_a_nodes_manifest_is_understood() -> None:
    applied = Applied.model_validate(_manifest("node.json"))
    variables = NodeVariables.model_validate(applied.variables)
    assert variables.digest() == digest_of(applied.variables) == applied.digest
    environment = Applied.model_validate(_manifest("environment.json"))
    assert environment.variables["redis_cache"]
    environments = {environment.variables["id"]: ObservedEnvironment(**_as_left(environment))}
    seen = {"observed_at": applied.applied_at, "hostname": "web-1", "environments": environments}
    there = ObservedNode(**_as_left(applied), **seen)
    assert diff_node(variables, applied.role_digest, there) == ()


def test_the_ledger_on_the_node_knows_what_was_applied() -> None:
    written = _manifest("environment.json")
    ledger = load("environment.ledger").Ledger(str(WRITTEN / "environment.json"))
    assert ledger.releases == tuple(written["releases"])
    assert ledger.contents == tuple(written["contents"])
    assert ledger.served_content(()) == written["contents"][-1]
    assert ledger.url == written["url"]
    assert ledger.certified == [one["hostname"] for one in written["variables"]["domains"]]
    assert ledger.declared_options == written["variables"]["options"]
    assert ledger.options == written["options"]
    assert ledger.release_details == written["release_details"]
