"""What work on nodes is done with: the connections, the runner, and the state that all of it is held against."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any
from uuid import UUID

import structlog

from reconciler.artifacts.pins import fetch_wordpress, fetch_wp_cli, host_variables
from reconciler.core.actions import Action, Desired, DrillBackup, ProvisionNode
from reconciler.core.entries import NodeEntry
from reconciler.core.errors import RecordsError
from reconciler.core.fleet import Fleet
from reconciler.core.going_back import Confirmed
from reconciler.core.holds import ALL
from reconciler.core.observed import ObservedNode
from reconciler.core.plan import Answer, Plan, Roles, decide
from reconciler.core.restraint import restrain
from reconciler.inventory import inventory_of
from reconciler.loop.circumstances import Circumstances
from reconciler.nodes.connection import Connections
from reconciler.nodes.observation import observe
from reconciler.nodes.runner import Runner, RunResult
from reconciler.nodes.target import Target
from reconciler.operations.confirming import is_confirmed, kept_content
from reconciler.records.events import EventKind
from reconciler.records.observations import Observation
from reconciler.roles import current_roles
from reconciler.settings import Settings
from reconciler.state import State, answer_of

log = structlog.get_logger()

LOGINS, AGAIN = timedelta(days=1), timedelta(minutes=1)
"""How long ago a login may be that a node is asked for first; how far looks overlap."""


@dataclass(frozen=True)
class Run:
    """One attempt of a job: its id and fence, how long it may take, and how it is told to stop."""

    job_id: UUID
    fence: int
    timeout_s: float
    cancel: threading.Event
    deliberate: bool = True
    """Somebody asked for it; mode ``report`` doesn't hold it back."""
    decisive: frozenset[str] | None = frozenset()
    """The names whose certificates decide how the job ends; None: each that it asks for one."""
    asked: frozenset[str] = ALL
    """The fields that somebody asked for, if somebody did: no hold keeps those."""
    backs_up: bool = False
    """Whatever is done, a full backup comes first."""
    confirmed: UUID | None = None
    """The former content to which somebody said that the environment shall go back."""


@dataclass(frozen=True)
class Inputs:
    """What a playbook is given beyond what is declared, and what of it no output may show."""

    extra_vars: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


class Tools:
    """Reaches the nodes for one control plane: looks at them, decides, and runs playbooks."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        connections: Connections,
        clock: Callable[[], datetime],
        *,
        warm: bool = False,
    ) -> None:
        """``warm``: as a ``Runner`` has it."""
        self.state = state
        self.clock = clock
        self.settings = settings
        self.connections = connections
        self._runner = Runner(settings.run_directory, connections, warm=warm)

    @property
    def roles(self) -> Roles:
        return current_roles()

    def observe(
        self, nodes: Iterable[NodeEntry], *, deep: bool = False, environments: list[str] | None = None
    ) -> Mapping[str, Answer]:
        """Ask the nodes, each in one round trip, and remember what was answered about all of a node."""
        asked = list(nodes)
        now = self.clock()
        targets = [self.target(node) for node in asked]
        # A deep or partial look doesn't replace what is remembered of the whole node.
        is_kept = environments is None and not deep
        since = self._answered_at(asked) if is_kept else None
        answers = observe(
            self.connections,
            targets,
            now=now,
            deep=deep,
            environments=environments,
            options=self._new_options(asked),
            since=since,
        )
        for node in asked if is_kept else ():
            self.state.records.observations.save(node.id, answers[node.slug], now)
            self._keep_logins(node.id, answers[node.slug])
        return answers

    def _answered_at(self, nodes: list[NodeEntry]) -> datetime:
        """Since when to ask who logged in: all of these nodes told of all who did so before."""
        known = self.state.records.observations.answered_at(node.id for node in nodes)
        earliest = self.clock() - LOGINS
        return max(earliest, min((known.get(node.id, earliest) for node in nodes), default=earliest) - AGAIN)

    def _new_options(self, nodes: list[NodeEntry]) -> dict[str, list[str]]:
        """By environment id, the declared options that the node was not seen to have been told of."""
        fleet = self.state.fleet()
        found: dict[str, list[str]] = {}
        for node in nodes:
            with_options = [one for one in fleet.environments_by_node.get(node.slug, ()) if one.manifest.spec.options]
            last = self.state.records.observations.latest(node.id) if with_options else None
            for environment in with_options:
                seen = last.observed.environments.get(str(environment.id)) if last and last.observed else None
                told = seen.applied.options if seen and seen.applied else {}
                if names := sorted(environment.manifest.spec.options.keys() - told.keys()):
                    found[str(environment.id)] = names
        return found

    def _keep_logins(self, node_id: UUID, answer: Answer) -> None:
        if isinstance(answer, ObservedNode):
            self.state.records.node_logins.save(node_id, answer.logins)

    def decide(
        self,
        fleet: Fleet,
        observed: Mapping[str, Answer],
        deliberate: frozenset[UUID] = frozenset(),
        confirmed: Confirmed = lambda _environment_id, _content_id: False,
        *,
        asked: frozenset[str] = ALL,
    ) -> Plan:
        """The plan for the nodes in ``observed``; what else is to be considered is read from the records.

        ``confirmed``: what somebody said beside the commits. ``asked``: see ``plan.decide``.
        """

        def said(environment_id: UUID, content_id: UUID) -> bool:
            known = confirmed(environment_id, content_id)
            return known or is_confirmed(self.state, fleet.environment(environment_id), content_id)

        decided = partial(
            decide,
            fleet,
            roles=self.roles,
            now=self.clock(),
            placed=self._placed(fleet),
            kept=partial(kept_content, self.state),
            confirmed=said,
        )
        known = Circumstances(
            self.state,
            fleet,
            answers=lambda: {**self.remembered(fleet), **observed},
            decide=decided,
        )
        return restrain(decided(observed, deliberate=deliberate, asked=asked), fleet, known, deliberate)

    def remembered(self, fleet: Fleet, observations: Mapping[UUID, Observation] | None = None) -> Mapping[str, Answer]:
        """The last answer of every node that was ever asked, by slug.

        ``observations``: by node id, for who has read them already.
        """
        known = self.state.records.observations.all() if observations is None else observations
        answers = {node.slug: answer_of(known.get(node.id)) for node in fleet.nodes.values()}
        return {name: answer for name, answer in answers.items() if answer is not None}

    def apply(self, action: Action, fleet: Fleet, run: Run, inputs: Inputs | None = None) -> RunResult:
        """Run the action's playbook on its node. By ``inputs`` it is given what isn't declared: see ``preparing``.

        Raises:
            ArtifactError: an archive that the action needs cannot be had.
        """
        self.tell(run, EventKind.STEP, {"action": action.verb, "target": action.target, "node": action.node})
        self._fetch_artifacts(action)
        environment_id = None if isinstance(action, ProvisionNode) else action.environment_id
        inventory = inventory_of(
            fleet,
            key_file=self.settings.ssh_key,
            artifacts=host_variables(self.settings.artifacts),
            node_id=action.node_id,
            environment_id=environment_id,
            instead=action.variables,
        )
        return self._runner.run(
            action.playbook,
            inventory,
            job=str(run.job_id),
            timeout_s=run.timeout_s,
            extra_vars=_extra_vars(action, run) | dict(inputs.extra_vars if inputs else {}),
            secrets=inputs.secrets if inputs else (),
            targets=[self.target(fleet.node(action.node_id))],
            cancel=run.cancel,
            on_progress=lambda progress: self.tell(run, EventKind.TASK, asdict(progress)),
        )

    def play(
        self,
        playbook: str,
        fleet: Fleet,
        node: NodeEntry,
        *,
        job: str,
        timeout_s: float,
        extra_vars: Mapping[str, Any],
        secrets: tuple[str, ...],
        cancel: threading.Event,
    ) -> RunResult:
        """Run a playbook on a node, be it decommissioned, for what is no job: ``job`` only names the run.

        What a killed control plane left of an earlier run, with the secrets that it was given, is removed first.
        """
        self._runner.sweep(job)
        artifacts = host_variables(self.settings.artifacts)
        inventory = inventory_of(
            fleet, key_file=self.settings.ssh_key, artifacts=artifacts, node_id=node.id, decommissioned=True
        )
        return self._runner.run(
            playbook,
            inventory,
            job=job,
            timeout_s=timeout_s,
            extra_vars=extra_vars,
            secrets=secrets,
            targets=[self.target(node)],
            cancel=cancel,
        )

    def tell(self, run: Run, kind: EventKind, data: Mapping[str, Any]) -> None:
        """Note how far a job is; a database that is full or busy must not end what goes well on the node."""
        try:
            self.state.records.events.tell(run.job_id, kind, data, self.clock())
        except RecordsError as error:
            log.warning("progress not noted", job=str(run.job_id), error=error.message)

    def _fetch_artifacts(self, action: Action) -> None:
        """Archives come to this host once; nodes never download."""
        fetch_wp_cli(self.settings.artifacts)
        if isinstance(action, Desired | ProvisionNode | DrillBackup):
            fetch_wordpress(action.variables.wordpress_version, self.settings.artifacts)

    def target(self, node: NodeEntry) -> Target:
        return Target.of(node, self.settings.ssh_key)

    def stop(self, job_id: UUID, node_id: UUID | None) -> None:
        """End what a dead worker left of a job, on this host and on the node."""
        node = self.state.fleet().nodes.get(node_id) if node_id else None
        self._runner.sweep(str(job_id), [self.target(node)] if node else [])

    def close(self) -> None:
        self._runner.close()
        self.connections.close()

    def _placed(self, fleet: Fleet) -> Callable[[UUID], str | None]:
        """Where environments were last seen; the records are read when the first is asked for."""

        @cache
        def places() -> dict[UUID, str]:
            observations = self.state.records.observations.all()
            return {
                UUID(environment_id): node.slug
                for node in fleet.nodes.values()
                if (seen := observations.get(node.id)) and seen.observed
                for environment_id in seen.observed.environments
            }

        return lambda environment_id: places().get(environment_id)


def _extra_vars(action: Action, run: Run) -> dict[str, Any]:
    job = {"trueup_job": {"id": str(run.job_id), "fence": run.fence}}
    if isinstance(action, ProvisionNode):
        return {"node": action.node, **job}
    # Nobody asks for certificates unless told for which names.
    more: dict[str, Any] = {"trueup_certify": []} if isinstance(action, Desired) else {}
    if action.held_options:
        more["trueup_held_options"] = list(action.held_options)
    return {"environment": action.target, **more, **job}
