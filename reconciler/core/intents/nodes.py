"""Nodes: declared with the host key that a person has seen."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from reconciler.core.errors import Conflict
from reconciler.core.fields import Slug
from reconciler.core.fleet import Fleet
from reconciler.core.intents.edits import BaseIntent, Edit
from reconciler.core.manifests import API_VERSION


class AddNode(BaseIntent):
    """Declare a host, with the host key that a person has seen."""

    operation: Literal["add_node"] = "add_node"
    node_id: UUID
    name: Slug
    address: str
    port: int
    user: str
    host_key: str


def add_node(intent: AddNode, fleet: Fleet) -> Edit:
    path = f"nodes/{intent.name}.yaml"
    taken = intent.name in fleet.nodes_by_slug or any(stalled.path == path for stalled in fleet.stalled)
    if taken:
        raise Conflict(f"{path} exists. Choose another name, or edit the document.")
    for node in fleet.nodes.values():
        if node.manifest.spec.address == intent.address and node.manifest.spec.ssh.port == intent.port:
            raise Conflict(f"Node {node.slug} has the address {intent.address} already. One host is one node.")
    document = {
        "apiVersion": API_VERSION,
        "kind": "Node",
        "metadata": {"id": str(intent.node_id), "name": intent.name},
        "spec": {
            "address": intent.address,
            "ssh": {"host_key": intent.host_key, "port": intent.port, "user": intent.user},
        },
    }
    return Edit(message=f"Add node {intent.name}", create={path: document})
