"""What waits in a copy, and its release: synchronous, without a job, and a release is written into the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import EnvironmentNotActive, NodeUnreachable, TrueupError
from reconciler.core.manifests import EnvironmentType
from reconciler.core.status import EnvironmentStatus
from reconciler.nodes import held as nodes
from reconciler.nodes.connection import Connections
from reconciler.nodes.held import Held
from reconciler.nodes.target import Target
from reconciler.operations.declaring import Actor
from reconciler.records.audit import Entry
from reconciler.settings import Settings
from reconciler.state import State


class HeldEvents:
    """Of the environments of one control plane. In production only what came with a copy's backup waits; one whose
    content came from nowhere is not asked."""

    def __init__(self, settings: Settings, state: State, connections: Connections) -> None:
        self._key_file = settings.ssh_key
        self._state = state
        self._connections = connections

    def of(self, environment_id: UUID) -> tuple[Held, ...]:
        """What waits, by kind and name.

        Raises:
            NodeUnreachable: its node did not answer within ten seconds.
            WpCliError: its WordPress could not say.
        """
        environment = self._state.fleet().environment(environment_id)
        if _has_nothing_from_elsewhere(environment):
            return ()
        return nodes.held_in(self._connections, self._target(environment), environment_id)

    def release(self, environment_id: UUID, names: Sequence[str] | None, who: Actor, now: datetime) -> tuple[Held, ...]:
        """Have what waits under these names (None: all of it) wait no longer: what was due runs at the next minute.

        Raises as ``of``, and:
            EnvironmentNotActive: something is being done to it, or it failed.
        """
        current = self._state.current()
        environment = current.fleet.environment(environment_id)
        try:
            status = current.status_of(environment_id)
            if status is not EnvironmentStatus.ACTIVE:
                raise EnvironmentNotActive(f"Environment {environment.key} is {status}. Wait until it is active.")
            released: tuple[Held, ...] = ()
            if not _has_nothing_from_elsewhere(environment):
                released = nodes.release(self._connections, self._target(environment), environment_id, names)
        except TrueupError as error:
            self._audit(environment_id, error.code, names, who, now)
            raise
        self._audit(environment_id, "done", names, who, now)
        return released

    def _target(self, environment: EnvironmentEntry) -> Target:
        node = self._state.fleet().node_of(environment)
        if node is None:
            raise NodeUnreachable(f"No document defines node {environment.manifest.spec.node}. Correct spec.node.")
        return Target.of(node, self._key_file)

    def _audit(
        self, environment_id: UUID, outcome: str, names: Sequence[str] | None, who: Actor, now: datetime
    ) -> None:
        entry = Entry(
            who=who.email,
            source=who.source,
            operation="events-release",
            outcome=outcome,
            environment_id=environment_id,
            summary={"names": "all" if names is None else ", ".join(names)[:1000]},
        )
        self._state.records.audit.append(entry, now)


def _has_nothing_from_elsewhere(environment: EnvironmentEntry) -> bool:
    spec = environment.manifest.spec
    return spec.type is EnvironmentType.PRODUCTION and (spec.content is None or spec.content.origin == "install")
