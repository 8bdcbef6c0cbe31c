"""The roles of this Trueup version, by their digests."""

from __future__ import annotations

from functools import cache

from reconciler.core.plan import Roles
from reconciler.nodes.module_utils import load


def current_roles() -> Roles:
    return Roles(node=role_digest("node"), environment=role_digest("environment"))


@cache
def role_digest(role: str) -> str:
    """The digest of a role's files, as the node's manifest has it: another one means that Trueup itself changed."""
    module = load("digest")
    return str(module.role_digest(module.role_paths(role)))
