"""Small documents for tests, as data and as fleets."""

from __future__ import annotations

from typing import Any

from reconciler.core.entries import Document, parse
from reconciler.core.fleet import Fleet, assemble

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtQUDZWhs8k/cZcykMkaoX7ZE7DXld8TP79HyddRVgS"


def node(address: str = "10.0.0.1", **spec: Any) -> dict[str, Any]:
    return _document("Node", {"address": address, "ssh": {"host_key": HOST_KEY}, **spec})


def site(name: str = "Acme") -> dict[str, Any]:
    return {"apiVersion": "trueup/v1", "kind": "Site", "metadata": {"name": name}, "spec": {}}


def environment(node: str = "web-1", **spec: Any) -> dict[str, Any]:
    return _document("Environment", {"type": "production", "node": node, **spec})


def _document(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "trueup/v1", "kind": kind, "spec": spec}


def small() -> dict[str, dict[str, Any]]:
    """One node, one site, one environment."""
    return {
        "nodes/web-1.yaml": node(),
        "sites/acme/site.yaml": site(),
        "sites/acme/environments/production.yaml": environment(),
    }


def fleet_of(documents: dict[str, Any], revision: str = "0" * 40) -> Fleet:
    return assemble(revision, [parse(Document(path, data, lambda _: None)) for path, data in documents.items()])
