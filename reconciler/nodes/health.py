"""Asks a node in one round trip which of its environments serve, with the code that ``playbooks/health.yml`` runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from reconciler.core.errors import NodeUnreachable
from reconciler.core.observed import ObservedHealth
from reconciler.nodes.connection import Connections
from reconciler.nodes.target import Target
from reconciler.paths import collection

PATIENCE_S = 300.0
"""Of one round trip: an environment whose every check hangs takes 42 s, and four are looked at side by side."""
_PACKAGE = "ansible_collections.trueup.wordpress.plugins.module_utils"
_ANSWER = TypeAdapter(dict[UUID, ObservedHealth])


def look(connections: Connections, target: Target, environments: Iterable[UUID]) -> Mapping[UUID, ObservedHealth]:
    """What was found, by environment id.

    Raises:
        NodeUnreachable: no answer, or none that can be understood.
    """
    argv = ["python3", "-I", "-S", "-", json.dumps([str(one) for one in environments])]
    done = connections.run(target, argv, stdin=_script(), timeout_s=PATIENCE_S)
    try:
        return _ANSWER.validate_json(done.stdout)
    except ValidationError as error:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300] or "nothing"
        raise NodeUnreachable(f"{target} was asked whether its environments serve, and said: {said}") from error


@cache
def _script() -> bytes:
    """The program with the modules that it needs. The packages around them are empty."""
    utils = collection() / "plugins" / "module_utils"
    sources: dict[str, str] = {}
    for path in utils.rglob("*.py"):
        name = ".".join((_PACKAGE, *path.relative_to(utils).with_suffix("").parts))
        sources |= dict.fromkeys(_packages(name), "") | {name: path.read_text(encoding="utf-8")}
    program = Path(__file__).with_name("carried.py").read_text(encoding="utf-8")
    return program.replace("= {}\n", f"= json.loads({json.dumps(sources)!r})\n", 1).encode()


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]
