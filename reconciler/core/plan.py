"""Decide: desired state and what the nodes answered become a plan. A purely computational step with no effects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from reconciler.core.actions import (
    BRINGING,
    ConfigureEnvironment,
    DeployRelease,
    Desired,
    ProvisionNode,
    UpdateWordPress,
)
from reconciler.core.certificates import changes_of
from reconciler.core.changes import Change, diff_environment, diff_node
from reconciler.core.entries import EnvironmentEntry, NodeEntry, Stalled
from reconciler.core.fleet import Fleet
from reconciler.core.manifests import Reconcile, ReconcileMode, effective_mode
from reconciler.core.observed import ObservedEnvironment, ObservedNode, Unreachable
from reconciler.core.variables import EnvironmentVariables


class Verdict(StrEnum):
    """What becomes of a step."""

    APPLY = "apply"
    REPORT = "report"
    """Told, not done: the mode says so, or nothing of it can be healed."""
    PAUSED = "paused"
    BLOCKED = "blocked"
    """Applying would do harm or cannot work; ``reason`` says what to do first."""


@dataclass(frozen=True)
class Step:
    """One action with the changes that call for it."""

    action: ProvisionNode | Desired
    changes: tuple[Change, ...]
    verdict: Verdict
    reason: str | None = None


@dataclass(frozen=True)
class Silent:
    """A node that gave no answer: its environments' state is unknown, so nothing is decided for them."""

    node: str
    reason: str
    environments: tuple[str, ...]


@dataclass(frozen=True)
class Orphan:
    """An environment on a node that no document defines. Nothing is ever deleted because of that alone."""

    node: str
    environment_id: str


@dataclass(frozen=True)
class Roles:
    """Digests of the roles of this Trueup version (hex sha256)."""

    node: str
    environment: str


@dataclass(frozen=True)
class Plan:
    """Steps in the order in which they are applied: nodes first, then environments by name."""

    revision: str
    steps: tuple[Step, ...]
    silent: tuple[Silent, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    stalled: tuple[Stalled, ...] = ()

    @property
    def to_apply(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.verdict is Verdict.APPLY)

    @property
    def is_empty(self) -> bool:
        """Nothing differs, as far as the nodes answered."""
        return not self.steps

    def for_environment(self, environment_id: UUID) -> Step | None:
        return next(
            (
                step
                for step in self.steps
                if isinstance(step.action, Desired) and step.action.environment_id == environment_id
            ),
            None,
        )

    def for_node(self, node_id: UUID) -> Step | None:
        return next(
            (step for step in self.steps if isinstance(step.action, ProvisionNode) and step.action.node_id == node_id),
            None,
        )

    def only(self, targets: frozenset[str]) -> Plan:
        """The part of the plan that concerns these: node names, sites, or ``site/environment``."""

        def concerns(step: Step) -> bool:
            target = step.action.target
            return target in targets or target.partition("/")[0] in targets

        return replace(self, steps=tuple(step for step in self.steps if concerns(step)))

    def digest(self) -> str:
        """sha256 of what would be done, so that a reviewed plan can be required at apply time."""
        data = [[step.action.verb, step.action.target, [asdict(c) for c in step.changes]] for step in self.steps]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


Answer = ObservedNode | Unreachable


def decide(
    fleet: Fleet,
    observed: Mapping[str, Answer],
    roles: Roles,
    now: datetime,
    *,
    deliberate: frozenset[UUID] = frozenset(),
    placed: Callable[[UUID], str | None] = lambda _environment_id: None,
) -> Plan:
    """The plan that makes the observed nodes what the fleet says.

    Args:
        observed: by node name. A node that isn't in it wasn't asked: nothing is decided for it.
        deliberate: environments or nodes that a person asked to apply now; their mode ``report`` doesn't hold.
        placed: the node where an environment was last seen; asked only for one that is missing where it should be
            and that no node in ``observed`` has.
    """
    seen = _placements(observed)

    def where(environment_id: UUID) -> str | None:
        return seen.get(environment_id) or placed(environment_id)

    steps: list[Step] = []
    silent: list[Silent] = []
    for node in sorted(fleet.nodes.values(), key=lambda node: node.slug):
        answer = observed.get(node.slug)
        environments = fleet.environments_by_node.get(node.slug, ())
        if isinstance(answer, Unreachable):
            silent.append(Silent(node.slug, answer.reason, tuple(sorted(e.key for e in environments))))
        elif answer is not None:
            steps += _node_steps(fleet, node, answer, roles, now, deliberate)
            for environment in sorted(environments, key=lambda environment: environment.key):
                steps += _environment_steps(fleet, environment, node, answer, roles, now, deliberate, where)
    steps.sort(key=lambda step: (isinstance(step.action, Desired), step.action.target))
    return Plan(fleet.revision, tuple(steps), tuple(silent), tuple(_orphans(fleet, observed)), fleet.stalled)


def _placements(observed: Mapping[str, Answer]) -> dict[UUID, str]:
    return {
        UUID(environment_id): name
        for name, answer in observed.items()
        if isinstance(answer, ObservedNode)
        for environment_id in answer.environments
    }


def _node_steps(
    fleet: Fleet, node: NodeEntry, answer: ObservedNode, roles: Roles, now: datetime, deliberate: frozenset[UUID]
) -> Iterator[Step]:
    # A stalled document says nothing that may be acted on; a decommissioned host is somebody else's.
    if node.stalled or node.manifest.spec.state != "active":
        return
    variables = fleet.node_variables(node.id)
    changes = diff_node(variables, roles.node, answer)
    if not changes:
        return
    verdict, reason = _verdict(node.manifest.spec.reconcile, answer.hold, changes, now, node.id in deliberate)
    yield Step(ProvisionNode(node.slug, node.id, variables), changes, verdict, reason)


def _environment_steps(
    fleet: Fleet,
    environment: EnvironmentEntry,
    node: NodeEntry,
    answer: ObservedNode,
    roles: Roles,
    now: datetime,
    deliberate: frozenset[UUID],
    where: Callable[[UUID], str | None],
) -> Iterator[Step]:
    if environment.stalled or node.manifest.spec.state != "active":
        return
    variables = fleet.environment_variables(environment.id)
    there = answer.environments.get(str(environment.id))
    changes = diff_environment(variables, roles.environment, there)
    if there is not None and there.applied is not None:
        changes += tuple(changes_of(variables, there, now, deliberate=environment.id in deliberate))
    if not changes:
        return
    verdict, reason = _verdict(
        environment.manifest.spec.reconcile, answer.hold, changes, now, environment.id in deliberate
    )
    if harm := _harm(environment, variables, node, answer, there, where):
        verdict, reason = Verdict.BLOCKED, harm
    kind = _kind(variables, there)
    yield Step(kind(node.slug, node.id, environment.id, variables), changes, verdict, reason)


def _kind(variables: EnvironmentVariables, there: ObservedEnvironment | None) -> type[Desired]:
    """What brings the environment to where it should be: new content, else new code, else configuring alone."""
    applied = there.applied if there else None
    contents, releases = (applied.contents, applied.releases) if applied else ((), ())
    if variables.content.id not in contents and variables.content.origin in BRINGING:
        return BRINGING[variables.content.origin]
    release = variables.release
    # A release that the node still has is only switched to.
    if release.id in releases:
        return ConfigureEnvironment
    if release.origin == "update":
        return UpdateWordPress
    return DeployRelease if release.source_type and release.origin is None else ConfigureEnvironment


def _harm(  # noqa: PLR0911 (one a reason)
    environment: EnvironmentEntry,
    variables: EnvironmentVariables,
    node: NodeEntry,
    answer: ObservedNode,
    there: ObservedEnvironment | None,
    where: Callable[[UUID], str | None],
) -> str | None:
    """Why applying now would lose something or cannot work."""
    # Creating it here would show an empty site where the real one is a node away.
    if there is None and (elsewhere := where(environment.id)) not in {None, node.slug}:
        return f"{environment.key} is on node {elsewhere}. Set spec.node back to {elsewhere}."
    if answer.applied is None:
        return f"Node {node.slug} is not provisioned yet."
    if impossible := _no_update(variables, there):
        return impossible
    if there is None or there.applied is None:
        return None
    contents = there.applied.contents
    if variables.content.id in contents and variables.content.id != contents[-1]:
        return f"Content {variables.content.id} was left for {contents[-1]}. Restore the backup that was taken then."
    applied = there.applied.variables
    same_release = applied.get("release", {}).get("id") == variables.release.id
    # A release is immutable: another version of WordPress is another release.
    if same_release and applied.get("wordpress_version") != variables.wordpress_version:
        return "Another WordPress version is another release: give spec.release.id a new id."
    return None


def _no_update(variables: EnvironmentVariables, there: ObservedEnvironment | None) -> str | None:
    """Why the declared update cannot be made: it is made of a release that the node has."""
    release, applied = variables.release, there.applied if there else None
    if release.origin != "update" or (applied and release.id in applied.releases):
        return None
    if applied is None:
        return "There is nothing to update yet. Give spec.release another origin first."
    if release.made_from and release.made_from not in applied.releases:
        return f"The node does not have release {release.made_from}, which is to be updated. Correct made_from."
    return None


def _verdict(
    reconcile: Reconcile, hold: str | None, changes: tuple[Change, ...], now: datetime, deliberate: bool
) -> tuple[Verdict, str | None]:
    if hold is not None:
        return Verdict.PAUSED, f"The node is on hold: {hold or 'no reason given'}"
    if not any(change.heals for change in changes):
        return Verdict.REPORT, "Nothing here is healed by applying."
    mode = effective_mode(reconcile, now)
    if mode is ReconcileMode.PAUSED:
        return Verdict.PAUSED, reconcile.reason or "spec.reconcile.mode is paused."
    if mode is ReconcileMode.REPORT and not deliberate:
        return Verdict.REPORT, reconcile.reason or "spec.reconcile.mode is report."
    return Verdict.APPLY, None


def _orphans(fleet: Fleet, observed: Mapping[str, Answer]) -> Iterator[Orphan]:
    for name, answer in sorted(observed.items()):
        if isinstance(answer, ObservedNode):
            for environment_id in sorted(answer.environments):
                if UUID(environment_id) not in fleet.environments:
                    yield Orphan(name, environment_id)


def plan_data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON data: ``revision digest steps[] silent[] orphans[] stalled[]``."""
    return {
        "revision": plan.revision,
        "digest": plan.digest(),
        "steps": [
            {
                "action": step.action.verb,
                "target": step.action.target,
                "node": step.action.node,
                "verdict": step.verdict.value,
                "reason": step.reason,
                "changes": [asdict(change) for change in step.changes],
            }
            for step in plan.steps
        ],
        "silent": [asdict(silent) for silent in plan.silent],
        "orphans": [asdict(orphan) for orphan in plan.orphans],
        "stalled": [asdict(stalled) for stalled in plan.stalled],
    }
