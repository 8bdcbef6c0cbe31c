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
from reconciler.paths import share

PATIENCE_S = 300.0
"""Of one round trip: an environment whose every check hangs takes 42 s, and four are looked at side by side."""
_PACKAGE = "ansible.module_utils"
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
    utils = share() / "playbooks" / "module_utils"
    sources = {f"{_PACKAGE}.{path.stem}": path.read_text(encoding="utf-8") for path in utils.glob("trueup_*.py")}
    sources |= {"ansible": "", _PACKAGE: ""}
    program = Path(__file__).with_name("carried.py").read_text(encoding="utf-8")
    return program.replace("= {}\n", f"= json.loads({json.dumps(sources)!r})\n", 1).encode()
