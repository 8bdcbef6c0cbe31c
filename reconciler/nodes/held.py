"""What waits in a copy: due events, scheduled actions and webhooks that came with its content. One ssh command, no job.

The site's own PHP answers, which runs already: what it says is a stranger's word.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from reconciler.core.errors import NodeUnreachable, WpCliError
from reconciler.core.node_answer import AnswerRefused, read_object, understood
from reconciler.core.observed import Count, Word
from reconciler.nodes.connection import Completed, Connections
from reconciler.nodes.module_utils import PYTHON, carried, load
from reconciler.nodes.target import Target

PATIENCE_S = 9.5
MOST = 10_000


class Held(BaseModel):
    """What waits under one name."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Literal["event", "action", "webhook"]
    name: Word
    count: Count
    due_at: Word | None = None
    """ISO 8601: when the first of them was due."""


class _Answer(BaseModel):
    held: Annotated[tuple[Held, ...], Field(max_length=MOST)]


def held_in(connections: Connections, target: Target, environment_id: UUID) -> tuple[Held, ...]:
    """What waits there.

    Raises:
        NodeUnreachable: no answer in ten seconds.
        WpCliError: WordPress on the node could not say.
    """
    return _ask(connections, target, environment_id, {})


def release(
    connections: Connections, target: Target, environment_id: UUID, names: Sequence[str] | None
) -> tuple[Held, ...]:
    """Have what waits under these names, or all of it, wait no longer; what was released. Raises as ``held_in``."""
    return _ask(connections, target, environment_id, {"release": True, "names": None if names is None else [*names]})


def _ask(connections: Connections, target: Target, environment_id: UUID, said: dict[str, object]) -> tuple[Held, ...]:
    layout = load("environment/layout").Layout(str(environment_id))
    asked = {
        "socket": layout.socket,
        "user": layout.user,
        "timeout_s": PATIENCE_S - 1.5,
        "parameters": {
            "REQUEST_METHOD": "GET",
            "REQUEST_URI": "/",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "/copy.php",
            "SCRIPT_FILENAME": layout.copy_script,
            "DOCUMENT_ROOT": layout.current,
            "TRUEUP_ASKED": json.dumps(said),
        },
    }
    answer = connections.wait(_in_time(connections, target, carried("held", "ask", asked, ("held", "fastcgi", "peer"))))
    try:
        if answer.exit == 0:
            return understood(_Answer, read_object(answer.stdout)).held
    except AnswerRefused:
        pass
    # PHP's own words name files of the site; what a client may see is that it failed, and where to look.
    raise WpCliError(
        f"WordPress on {target.name} did not say what waits (exit status {answer.exit}). Look at its PHP log."
    )


async def _in_time(connections: Connections, target: Target, program: bytes) -> Completed:
    try:
        work = connections.run_async(target, PYTHON, stdin=program, timeout_s=PATIENCE_S)
        return await asyncio.wait_for(work, PATIENCE_S)
    except TimeoutError as error:
        raise NodeUnreachable(f"{target} did not answer within 10 seconds. Try again, or look at the node.") from error
