"""Make one target what its documents say: observe, decide, guard, apply, observe again, summarize."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from reconciler.artifacts import fetch_wordpress, fetch_wp_cli, host_variables
from reconciler.core.actions import Action, ConfigureEnvironment, ProvisionNode, PurgeCache
from reconciler.core.changes import Cause
from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode
from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.core.plan import Answer, Plan, Roles, Step, Verdict, decide
from reconciler.inventory import inventory_of
from reconciler.nodes.connection import Connections, Target
from reconciler.nodes.observation import observe
from reconciler.nodes.runner import Runner, RunResult, role_digest
from reconciler.records.drift import DriftCheck
from reconciler.records.outcomes import Failed, Outcome, Stopped, Succeeded
from reconciler.settings import Settings
from reconciler.state import State, answer_of

ROUNDS = 2
"""A host that was never provisioned needs two: the baseline first, then what stands on it."""


@dataclass(frozen=True)
class Run:
    """One attempt of a job: its id and fence, how long it may take, and how it is told to stop."""

    job_id: UUID
    fence: int
    timeout_s: float
    cancel: threading.Event
    deliberate: bool = True
    """Somebody asked for it; mode ``report`` doesn't hold it back."""


class Tools:
    """Reaches the nodes for one control plane: looks at them, decides, and runs playbooks."""

    def __init__(
        self, settings: Settings, state: State, connections: Connections, clock: Callable[[], datetime]
    ) -> None:
        self.state = state
        self.clock = clock
        self._settings = settings
        self._connections = connections
        self._runner = Runner(settings.run_directory, connections)

    @property
    def roles(self) -> Roles:
        return Roles(node=role_digest("node"), environment=role_digest("environment"))

    def observe(
        self, nodes: Iterable[NodeEntry], *, deep: bool = False, environments: list[str] | None = None
    ) -> Mapping[str, Answer]:
        """Ask the nodes, each in one round trip, and remember what was answered about all of a node."""
        asked = list(nodes)
        now = self.clock()
        targets = [self.target(node) for node in asked]
        answers = observe(self._connections, targets, now=now, deep=deep, environments=environments)
        for node in asked:
            # A deep or partial look doesn't replace what is remembered of the whole node.
            if environments is None and not deep:
                self.state.records.observations.save(node.id, answers[node.slug], now)
        return answers

    def decide(self, fleet: Fleet, observed: Mapping[str, Answer], deliberate: frozenset[UUID] = frozenset()) -> Plan:
        return decide(fleet, observed, self.roles, self.clock(), deliberate=deliberate, placed=self._placed(fleet))

    def remembered(self, fleet: Fleet) -> Mapping[str, Answer]:
        """The last answer of every node that was ever asked."""
        observations = self.state.records.observations.all()
        answers = {node.slug: answer_of(observations.get(node.id)) for node in fleet.nodes.values()}
        return {name: answer for name, answer in answers.items() if answer is not None}

    def apply(self, action: Action, fleet: Fleet, run: Run) -> RunResult:
        """Run the action's playbook on its node.

        Raises:
            ArtifactError: an archive that the action needs cannot be had.
        """
        self._fetch_artifacts(action)
        environment_id = None if isinstance(action, ProvisionNode) else action.environment_id
        inventory = inventory_of(
            fleet,
            key_file=self._settings.ssh_key,
            artifacts=host_variables(self._settings.artifacts),
            node_id=action.node_id,
            environment_id=environment_id,
        )
        return self._runner.run(
            action.playbook,
            inventory,
            job=str(run.job_id),
            timeout_s=run.timeout_s,
            extra_vars=_extra_vars(action, run),
            targets=[self.target(fleet.node(action.node_id))],
            cancel=run.cancel,
        )

    def _fetch_artifacts(self, action: Action) -> None:
        """Archives come to this host once; nodes never download."""
        fetch_wp_cli(self._settings.artifacts)
        if isinstance(action, ConfigureEnvironment | ProvisionNode):
            fetch_wordpress(action.variables.wordpress_version, self._settings.artifacts)

    def target(self, node: NodeEntry) -> Target:
        return Target.of(node, self._settings.ssh_key)

    def stop(self, job_id: UUID, node_id: UUID | None) -> None:
        """End what a dead worker left of a job, on this host and on the node."""
        node = self.state.fleet().nodes.get(node_id) if node_id else None
        self._runner.sweep(str(job_id), [self.target(node)] if node else [])

    def close(self) -> None:
        self._runner.close()
        self._connections.close()

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
    return {"environment": action.target, **job}


def reconcile_environment(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Bring one environment, and before it its node if that was never provisioned, to the desired state."""
    done: list[Step] = []
    for _ in range(ROUNDS):
        fleet = tools.state.fleet()
        environment, node = _placed_environment(fleet, environment_id)
        if environment is None or node is None or environment.stalled:
            return _nothing_to_go_by(environment, environment_id)
        answer = tools.observe([node])[node.slug]
        plan = tools.decide(fleet, {node.slug: answer}, _deliberate(run, environment_id, node.id))
        steps = _own_steps(plan, environment_id, node.id, answer)
        if refused := _refusal(node, answer, steps):
            return refused
        todo = [step for step in steps if step.verdict is Verdict.APPLY]
        if not todo:
            return _summary(done, plan.for_environment(environment_id))
        if failed := _failure(tools.apply(todo[0].action, fleet, run)):
            return failed
        done.append(todo[0])
    return _confirmed(environment_id, fleet, tools, done)


def reconcile_node(node_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Bring one node to the baseline; its environments are not touched."""
    fleet = tools.state.fleet()
    node = fleet.nodes.get(node_id)
    if node is None or node.stalled:
        return _nothing_to_go_by(node, node_id)
    answer = tools.observe([node])[node.slug]
    step = tools.decide(fleet, {node.slug: answer}, _deliberate(run, node_id)).for_node(node_id)
    if refused := _refusal(node, answer, [step] if step else []):
        return refused
    if step is None or step.verdict is not Verdict.APPLY:
        return _summary([], step)
    if failed := _failure(tools.apply(step.action, fleet, run)):
        return failed
    after = tools.decide(fleet, tools.observe([node]), _deliberate(run, node_id)).for_node(node_id)
    return _unconverged(after) or _summary([step], after)


def purge_cache(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Empty both caches of one environment."""
    fleet = tools.state.fleet()
    environment, node = _placed_environment(fleet, environment_id)
    if environment is None or node is None or environment.stalled:
        return _nothing_to_go_by(environment, environment_id)
    variables = fleet.environment_variables(environment_id)
    failed = _failure(tools.apply(PurgeCache(node.slug, node.id, environment_id, variables), fleet, run))
    return failed or Succeeded()


def check_drift(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Compare one environment with what it should be, every file of its code included, and keep the result."""
    fleet = tools.state.fleet()
    environment, node = _placed_environment(fleet, environment_id)
    if environment is None or node is None or environment.stalled:
        return _nothing_to_go_by(environment, environment_id)
    answer = tools.observe([node], deep=True, environments=[str(environment_id)])[node.slug]
    if isinstance(answer, Unreachable):
        return Failed(JobErrorCode.ANSIBLE_HOST_UNREACHABLE, answer.reason)
    step = tools.decide(fleet, {node.slug: answer}).for_environment(environment_id)
    differences = tuple(asdict(change) for change in step.changes) if step else ()
    check = DriftCheck(
        id=run.job_id,
        environment_id=environment_id,
        status="drifted" if differences else "clean",
        differences=differences,
        created_at=tools.clock(),
        job_id=run.job_id,
        revision=fleet.revision,
    )
    tools.state.records.drift_checks.save(check)
    return Succeeded({"drift_status": check.status, "differences": list(differences)})


def _placed_environment(fleet: Fleet, environment_id: UUID) -> tuple[EnvironmentEntry | None, NodeEntry | None]:
    environment = fleet.environments.get(environment_id)
    return environment, fleet.node_of(environment) if environment else None


def _nothing_to_go_by(entry: EnvironmentEntry | NodeEntry | None, id_: UUID) -> Failed:
    if entry is None:
        return Failed(JobErrorCode.TARGET_MISSING, f"No document defines {id_} any more. Nothing was done.")
    if entry.stalled:
        return Failed(JobErrorCode.DOCUMENT_STALLED, f"{entry.stalled} Nothing was done. Correct the document.")
    return Failed(JobErrorCode.TARGET_MISSING, f"The node of {entry.path} has no document. Nothing was done.")


def _deliberate(run: Run, *targets: UUID) -> frozenset[UUID]:
    return frozenset(targets) if run.deliberate else frozenset()


def _own_steps(plan: Plan, environment_id: UUID, node_id: UUID, answer: Answer) -> list[Step]:
    """The environment's own step, after its node's where the node was never provisioned."""
    node = plan.for_node(node_id) if isinstance(answer, ObservedNode) and answer.applied is None else None
    return [step for step in (node, plan.for_environment(environment_id)) if step]


def _refusal(node: NodeEntry, answer: Answer, steps: list[Step]) -> Failed | None:
    """Why nothing may be applied now."""
    if isinstance(answer, Unreachable):
        return Failed(JobErrorCode.ANSIBLE_HOST_UNREACHABLE, answer.reason)
    if answer.hold is not None:
        reason = answer.hold or "no reason given"
        return Failed(JobErrorCode.NODE_ON_HOLD, f"Node {node.slug} is on hold: {reason}. Remove /etc/trueup/hold.")
    blocked = [step for step in steps if step.verdict is Verdict.BLOCKED]
    if blocked and not any(step.verdict is Verdict.APPLY for step in steps):
        return Failed(JobErrorCode.PLAN_BLOCKED, f"{blocked[0].action.target}: {blocked[0].reason}")
    return None


def _failure(result: RunResult) -> Failed | Stopped | None:
    if result.ok:
        return None
    if result.status == "cancelled":
        return Stopped()
    if result.status == "timed_out":
        return Failed(JobErrorCode.JOB_TIMEOUT, result.message)
    code = result.error_code or JobErrorCode.ANSIBLE_UNKNOWN_EXIT
    return Failed(code, f"{result.message}\n\n{result.output}".strip())


def _confirmed(environment_id: UUID, fleet: Fleet, tools: Tools, done: list[Step]) -> Outcome:
    """Look again: what the node answers now decides, not what Ansible said.

    Against the revision that was applied: what was committed meanwhile is another job's.
    """
    _, node = _placed_environment(fleet, environment_id)
    answers = tools.observe([node] if node else [])
    after = tools.decide(fleet, answers, frozenset({environment_id})).for_environment(environment_id)
    return _unconverged(after) or _summary(done, after)


def _unconverged(step: Step | None) -> Failed | None:
    # Another role digest means that Trueup was upgraded under a running process; the restarted one sees to it.
    changes = step.changes if step and step.verdict is Verdict.APPLY else ()
    left = [change for change in changes if change.heals and change.cause is not Cause.UPGRADED]
    if not left:
        return None
    told = "; ".join(f"{c.field}: desired {c.desired}, observed {c.observed}" for c in left[:10])
    return Failed(JobErrorCode.NOT_CONVERGED, f"Applied, and still different: {told}. Look at the node.")


def _summary(done: list[Step], left: Step | None) -> Succeeded:
    applied = [
        {"action": step.action.verb, "target": step.action.target, "changes": [asdict(c) for c in step.changes]}
        for step in done
    ]
    reported = [asdict(change) for change in left.changes] if left else []
    return Succeeded({"applied": applied, "reported": reported})
