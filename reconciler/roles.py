"""The roles of this Trueup version, by their digests."""

from __future__ import annotations

import importlib.util
from functools import cache

from reconciler.core.errors import Invalid
from reconciler.core.plan import Roles
from reconciler.paths import collection


def current_roles() -> Roles:
    return Roles(node=role_digest("node"), environment=role_digest("environment"))


@cache
def role_digest(role: str) -> str:
    """The digest of a role's files, as the node's manifest has it: another one means that Trueup itself changed."""
    path = collection() / "plugins" / "module_utils" / "digest.py"
    spec = importlib.util.spec_from_file_location("digest", path)
    if spec is None or spec.loader is None:
        raise Invalid(f"{path} cannot be imported. Reinstall Trueup.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.role_digest(module.role_paths(role)))
