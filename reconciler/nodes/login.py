"""One-time administrator logins: a token's hash goes to the node, the token to whoever asked for it.

One ssh command, ten seconds at most, no job. Nothing that a user wrote is in the command: an id, a hash, a number.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from uuid import UUID

from reconciler.core.errors import NodeUnreachable, WpCliError
from reconciler.nodes.connection import Completed, Connections
from reconciler.nodes.module_utils import load
from reconciler.nodes.target import Target

LIFE = timedelta(seconds=60)
PATIENCE_S = 9.5
"""Of all steps together; the answer is promised within ten seconds."""


@dataclass(frozen=True)
class Login:
    """``token`` works once, until ``expires_at``; ``home`` is the address that WordPress takes for its own."""

    token: str
    home: str
    expires_at: datetime


def create_login(connections: Connections, target: Target, environment_id: UUID, now: datetime) -> Login:
    """Let whoever brings the token in be the environment's administrator, once.

    Raises:
        NodeUnreachable: no answer in ten seconds.
        WpCliError: WordPress on the node could not do it.
    """
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    layout = load("environment/layout").Layout(str(environment_id))
    sandbox = load("environment/sandbox")
    php = ["/usr/bin/php", "-d", "display_errors=stderr", "-d", f"disable_functions={sandbox.DISABLED_FUNCTIONS}"]
    php += ["--", layout.current, digest, str(int(LIFE.total_seconds()))]
    argv = sandbox.command(layout, php, seconds=int(PATIENCE_S), unit=secrets.token_hex(8))
    answer = connections.wait(_in_time(connections, target, argv))
    if answer.exit != 0:
        raise WpCliError(_said(target, answer))
    try:
        home = str(json.loads(answer.stdout.splitlines()[-1])["home"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WpCliError(_said(target, answer)) from error
    return Login(token, home, now + LIFE)


async def _in_time(connections: Connections, target: Target, argv: list[str]) -> Completed:
    script = files("reconciler.nodes").joinpath("login.php").read_bytes()
    try:
        work = connections.run_async(target, argv, stdin=script, timeout_s=PATIENCE_S)
        return await asyncio.wait_for(work, PATIENCE_S)
    except TimeoutError as error:
        raise NodeUnreachable(f"{target} did not answer within 10 seconds. Try again, or look at the node.") from error


def _said(target: Target, answer: Completed) -> str:
    # PHP's own words name files of the site; what a client may see is that it failed, and where to look.
    return f"WordPress on {target.name} made no login (exit status {answer.exit}). Look at the site's PHP log."
