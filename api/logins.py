"""Magic logins: synchronous, without a job, and written into the audit log whatever comes of them."""

from __future__ import annotations

from urllib.parse import quote, urlsplit
from uuid import UUID

import structlog

from api.dependencies import Dependencies
from api.views import MagicLogin
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import EnvironmentNotActive, NodeUnreachable, TrueupError
from reconciler.core.fleet import Fleet
from reconciler.core.status import EnvironmentStatus
from reconciler.declaring import Actor
from reconciler.nodes.connection import Target
from reconciler.nodes.login import create_login
from reconciler.records.audit import Entry

_log = structlog.get_logger(__name__)


def magic_login(environment_id: UUID, who: Actor, deps: Dependencies) -> MagicLogin:
    """A URL that logs a browser in as the environment's administrator, once, for a minute.

    Raises:
        EnvironmentNotActive: something is being done to it, or it failed.
        NodeUnreachable: its node did not answer within ten seconds.
        WpCliError: its WordPress could not do it.
    """
    current = deps.state.current()
    environment = current.fleet.environment(environment_id)
    try:
        login = _login(environment, current.status_of(environment_id), current.fleet, deps)
    except TrueupError as error:
        _audit(environment_id, error.code, who, deps)
        raise
    _audit(environment_id, "done", who, deps)
    return login


def _login(environment: EnvironmentEntry, status: EnvironmentStatus, fleet: Fleet, deps: Dependencies) -> MagicLogin:
    if status is not EnvironmentStatus.ACTIVE:
        raise EnvironmentNotActive(f"Environment {environment.key} is {status}. Wait until it is active.")
    node = fleet.node_of(environment)
    if node is None:
        raise NodeUnreachable(f"No document defines node {environment.manifest.spec.node}. Correct spec.node.")
    target = Target.of(node, deps.settings.ssh_key)
    try:
        login = create_login(deps.connections, target, environment.id, deps.now())
    except NodeUnreachable as error:
        # Its own words name files of this host.
        _log.warning("no magic login", environment=environment.key, error=error.message)
        raise NodeUnreachable(
            f"Node {node.slug} did not answer within 10 seconds. Try again, or look at `trueup status`."
        ) from error
    home = login.home if _is_ours(login.home, environment, fleet) else fleet.preview_url(environment)
    return MagicLogin(login_url=f"{home}/?trueup_login={quote(login.token)}", expires_at=login.expires_at)


def _is_ours(home: str, environment: EnvironmentEntry, fleet: Fleet) -> bool:
    """Whether an address that the site gave for its own is one that we declared: a token goes nowhere else."""
    names = {domain.hostname for domain in environment.manifest.spec.domains}
    parts = urlsplit(home)
    return home == fleet.preview_url(environment) or (parts.scheme == "https" and parts.netloc in names)


def _audit(environment_id: UUID, outcome: str, who: Actor, deps: Dependencies) -> None:
    entry = Entry(
        who=who.email,
        source=who.source,
        operation="magic-login",
        outcome=outcome,
        environment_id=environment_id,
        summary={},
    )
    deps.records.audit.append(entry, deps.now())
