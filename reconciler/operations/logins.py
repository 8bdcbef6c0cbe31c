"""Magic logins: synchronous, without a job, and written into the audit log whatever comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote
from uuid import UUID

import structlog

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import EnvironmentNotActive, NodeUnreachable, TrueupError
from reconciler.core.fleet import Fleet
from reconciler.core.status import EnvironmentStatus
from reconciler.core.variables import reach_of
from reconciler.nodes.connection import Connections
from reconciler.nodes.login import create_login
from reconciler.nodes.target import Target
from reconciler.operations.declaring import Actor
from reconciler.records.audit import Entry
from reconciler.settings import Settings
from reconciler.state import State

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class MagicLogin:
    """``login_url`` works once, until ``expires_at``."""

    login_url: str
    expires_at: datetime


class MagicLogins:
    """Makes them for the environments of one control plane."""

    def __init__(self, settings: Settings, state: State, connections: Connections) -> None:
        self._key_file = settings.ssh_key
        self._state = state
        self._connections = connections

    def create(self, environment_id: UUID, who: Actor, now: datetime) -> MagicLogin:
        """A URL that logs a browser in as the environment's administrator, once, for a minute.

        Raises:
            EnvironmentNotActive: something is being done to it, or it failed.
            NodeUnreachable: its node did not answer within ten seconds.
            WpCliError: its WordPress could not do it.
        """
        current = self._state.current()
        environment = current.fleet.environment(environment_id)
        try:
            login = self._login(environment, current.status_of(environment_id), current.fleet, now)
        except TrueupError as error:
            self._audit(environment_id, error.code, who, now)
            raise
        self._audit(environment_id, "done", who, now)
        return login

    def _login(
        self, environment: EnvironmentEntry, status: EnvironmentStatus, fleet: Fleet, now: datetime
    ) -> MagicLogin:
        if status is not EnvironmentStatus.ACTIVE:
            raise EnvironmentNotActive(f"Environment {environment.key} is {status}. Wait until it is active.")
        node = fleet.node_of(environment)
        if node is None:
            raise NodeUnreachable(f"No document defines node {environment.manifest.spec.node}. Correct spec.node.")
        try:
            spec = environment.manifest.spec
            is_closed = reach_of(spec.type, spec.egress) == "closed"
            target = Target.of(node, self._key_file)
            login = create_login(self._connections, target, environment.id, now, is_closed=is_closed)
        except NodeUnreachable as error:
            # Its own words name files of this host.
            _log.info("no magic login", environment=environment.key, error=error.message)
            raise NodeUnreachable(
                f"Node {node.slug} did not answer within 10 seconds. Try again, or look at `trueup status`."
            ) from error
        home = login.home if _is_ours(login.home, environment, fleet) else fleet.preview_url(environment)
        return MagicLogin(f"{home}/?trueup_login={quote(login.token)}", login.expires_at)

    def _audit(self, environment_id: UUID, outcome: str, who: Actor, now: datetime) -> None:
        entry = Entry(
            who=who.email,
            source=who.source,
            operation="magic-login",
            outcome=outcome,
            environment_id=environment_id,
            summary={},
        )
        self._state.records.audit.append(entry, now)


def _is_ours(home: str, environment: EnvironmentEntry, fleet: Fleet) -> bool:
    """Whether an address that the site gave for its own is one that we declared: a token goes nowhere else."""
    domains = environment.manifest.spec.domains
    own = {f"{'https' if domain.tls else 'http'}://{domain.hostname}" for domain in domains}
    return home == fleet.preview_url(environment) or home in own
