"""Nodes, an addition to the contract."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from api.auth import require_session
from api.dependencies import Deps
from api.pages import Asked
from api.views import Node, node_views

router = APIRouter(prefix="/api/nodes", dependencies=[Depends(require_session)])


@router.get("")
def list_nodes(deps: Deps, part: Asked, response: Response) -> list[Node]:
    """Every node, by name, with what it last answered."""
    nodes, cursor = part.of(node_views(deps.state.current()), lambda node: (node.name,))
    part.link(response, cursor)
    return nodes
