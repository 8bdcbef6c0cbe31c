"""One-time administrator logins: a token's hash goes to the node, the token to whoever asked for it.

One ssh command, ten seconds at most, no job; the site's own PHP does it, which runs already. Nothing that a user wrote
is in what is sent: an id, a hash, a number.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from reconciler.core.errors import NodeUnreachable, WpCliError
from reconciler.nodes.connection import Completed, Connections
from reconciler.nodes.module_utils import PYTHON, carried, load
from reconciler.nodes.target import Target
from reconciler.paths import collection

SCRIPT = "roles/environment/files/login.php"
LIFE = timedelta(seconds=60)
PATIENCE_S = 9.5
"""Of all steps together; the answer is promised within ten seconds."""


@dataclass(frozen=True)
class Login:
    """``token`` works once, until ``expires_at``; ``home`` is the address that WordPress takes for its own."""

    token: str
    home: str
    expires_at: datetime


def create_login(
    connections: Connections, target: Target, environment_id: UUID, now: datetime, *, is_closed: bool
) -> Login:
    """Let whoever brings the token in be the environment's administrator, once.

    ``is_closed``: its code reaches no other host.

    Raises:
        NodeUnreachable: no answer in ten seconds.
        WpCliError: WordPress on the node could not do it.
    """
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    layout = load("environment/layout").Layout(str(environment_id))
    sandbox = load("environment/sandbox")
    life = str(int(LIFE.total_seconds()))
    php = ["/usr/bin/php", "-d", "display_errors=stderr", "-d", f"disable_functions={sandbox.DISABLED_FUNCTIONS}"]
    php += ["--", layout.current, digest, life]
    asked = {
        "socket": layout.socket,
        "user": layout.user,
        "parameters": _parameters(layout) | {"TRUEUP_LOGIN": digest, "TRUEUP_LOGIN_LIFE": life},
        "timeout_s": PATIENCE_S - 1.5,
        "argv": sandbox.command(layout, php, seconds=int(PATIENCE_S), unit=secrets.token_hex(8), is_closed=is_closed),
        "script": (collection() / SCRIPT).read_text(encoding="utf-8"),
    }
    program = carried("login", "keep", asked, ("login", "fastcgi", "peer"))
    answer = connections.wait(_in_time(connections, target, program))
    if answer.exit != 0:
        raise WpCliError(_said(target, answer))
    try:
        home = str(json.loads(answer.stdout.splitlines()[-1])["home"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WpCliError(_said(target, answer)) from error
    return Login(token, home, now + LIFE)


def _parameters(layout: Any) -> dict[str, str]:
    """Of a request for the script, which no visitor can make: nginx serves no file outside of a release."""
    return {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "/login.php",
        "SCRIPT_FILENAME": layout.login,
        "DOCUMENT_ROOT": layout.current,
    }


async def _in_time(connections: Connections, target: Target, program: bytes) -> Completed:
    try:
        work = connections.run_async(target, PYTHON, stdin=program, timeout_s=PATIENCE_S)
        return await asyncio.wait_for(work, PATIENCE_S)
    except TimeoutError as error:
        raise NodeUnreachable(f"{target} did not answer within 10 seconds. Try again, or look at the node.") from error


def _said(target: Target, answer: Completed) -> str:
    # PHP's own words name files of the site; what a client may see is that it failed, and where to look.
    return f"WordPress on {target.name} made no login (exit status {answer.exit}). Look at the site's PHP log."
