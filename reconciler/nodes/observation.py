"""What nodes answer, all asked at once: one round trip each. One that does not answer is ``Unreachable``, with why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

import asyncssh

from reconciler.core.errors import NodeUnreachable
from reconciler.core.node_answer import MOST_BYTES, AnswerRefused, read_answer
from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.core.visible import visible
from reconciler.nodes.connection import Connections
from reconciler.nodes.target import Target

LIGHT_S = 15.0
DEEP_S = 300.0


def observe(
    connections: Connections,
    targets: Iterable[Target],
    *,
    now: datetime,
    deep: bool = False,
    environments: Sequence[str] | None = None,
    options: Mapping[str, Sequence[str]] | None = None,
    since: datetime | None = None,
    timeout_s: float | None = None,
    probe: bytes | None = None,
) -> Mapping[str, ObservedNode | Unreachable]:
    """By node name. ``environments`` are the ids to look at; None: all that the node has.

    ``options`` names options of WordPress by environment id, to be read beside those that were applied.
    ``since`` asks for those who logged in by ssh after that, by another key than this control plane's.
    Raises nothing for a node.
    """
    script = probe if probe is not None else Path(__file__).with_name("probe.py").read_bytes()
    wanted = json.dumps(
        {
            "deep": deep,
            "environments": None if environments is None else list(environments),
            **({"options": options} if options else {}),
            "since": since and since.timestamp(),
        }
    )
    limit = timeout_s or (DEEP_S if deep else LIGHT_S)
    asked = list(targets)

    async def ask_all() -> list[ObservedNode | Unreachable]:
        return await asyncio.gather(*(_ask(connections, one, script, wanted, limit, now) for one in asked))

    return dict(zip((target.name for target in asked), connections.wait(ask_all()), strict=True))


async def _ask(
    connections: Connections, target: Target, script: bytes, options: str, timeout_s: float, now: datetime
) -> ObservedNode | Unreachable:
    argv = ["python3", "-I", "-S", "-", options]
    try:
        done = await connections.run_async(target, argv, stdin=script, timeout_s=timeout_s, max_output_bytes=MOST_BYTES)
    except NodeUnreachable as error:
        return Unreachable(since=now, reason=error.message)
    if done.exit != 0:
        said = visible(done.stderr.decode(errors="replace").strip().rpartition("\n")[2], 300) or "nothing"
        reason = f"{target} could not be observed: the probe ended with status {done.exit} and said: {said}"
        return Unreachable(since=now, reason=reason)
    return _understood(target, done.stdout, now)


def _understood(target: Target, answer: bytes, now: datetime) -> ObservedNode | Unreachable:
    try:
        seen = read_answer(answer)
    except AnswerRefused as error:
        return Unreachable(since=now, reason=f"{target} gave an answer that cannot be understood: {error}")
    if not seen.logins:
        return seen
    own = _fingerprint(target.key_file)
    return seen.model_copy(update={"logins": tuple(login for login in seen.logins if login.key != own)})


@cache
def _fingerprint(key_file: Path) -> str:
    return asyncssh.read_private_key(key_file).get_fingerprint("sha256")
