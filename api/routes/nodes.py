"""Nodes, an addition to the contract."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from api.auth import require_session
from api.dependencies import Deps
from api.views import Node, node_views

router = APIRouter(prefix="/api/nodes", dependencies=[Depends(require_session)])


@router.get("")
def list_nodes(deps: Deps) -> list[Node]:
    """Every node, with what it last answered."""
    return node_views(deps.state.current())
