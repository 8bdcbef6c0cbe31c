"""Decide: desired state and what the nodes answered become a plan. A purely computational step with no effects."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any
from uuid import UUID

from reconciler.core.actions import (
    BRINGING,
    DERIVING,
    ConfigureEnvironment,
    Declared,
    DeployRelease,
    Desired,
    ProvisionNode,
    ReturnContent,
)
from reconciler.core.certificates import changes_of
from reconciler.core.changes import Change, diff_environment, diff_node
from reconciler.core.entries import EnvironmentEntry, NodeEntry, Stalled
from reconciler.core.fields import SLUG_PATTERN
from reconciler.core.fleet import Fleet
from reconciler.core.going_back import Confirmed, Kept, another_version, is_left, refusal, want_of_confirmation
from reconciler.core.holds import ALL, holding, kept_elsewhere, kept_names, told, under_holds, withheld
from reconciler.core.observed import ObservedEnvironment, ObservedNode, Unreachable
from reconciler.core.policy import Reconcile, ReconcileMode, Window, closed, effective_mode
from reconciler.core.variables import EnvironmentVariables


class Verdict(StrEnum):
    """What becomes of a step."""

    APPLY = "apply"
    REPORT = "report"
    """Told, not done: the mode says so, or nothing of it can be healed."""
    PAUSED = "paused"
    WAITING = "waiting"
    """For a maintenance window."""
    BLOCKED = "blocked"
    """Applying would do harm or cannot work; ``reason`` says what to do first."""


ON_REQUEST = frozenset({Verdict.APPLY, Verdict.REPORT, Verdict.WAITING})
"""What is done when a person asks for it; the loop does the first alone."""


@dataclass(frozen=True)
class Step:
    """One action with the changes that call for it."""

    action: ProvisionNode | Desired
    changes: tuple[Change, ...]
    verdict: Verdict
    reason: str | None = None
    unconfirmed: bool = False
    """Blocked for nothing but want of somebody's word."""


@dataclass(frozen=True)
class Silent:
    """A node that gave no answer, or none that can be used of some environments: their state is unknown, so nothing
    is decided for them."""

    node: str
    reason: str
    environments: tuple[str, ...]


@dataclass(frozen=True)
class Orphan:
    """An environment on a node that no document defines. Nothing is ever deleted because of that alone."""

    node: str
    environment_id: str
    key: str | None = None
    """What it was named when it was last applied, as far as the node knows."""


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
        """sha256 of all that would be done where a person asks for it, so that a reviewed plan can be required then.

        The variables are in it: what is made from nothing is told as one change, whatever it is to be.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        data = [
            [
                *(step.action.verb, step.action.target, step.action.node, step.action.variables.digest()),
                "done" if step.verdict in ON_REQUEST or step.unconfirmed else step.verdict.value,
                [change.data() for change in step.changes],
                *([str(step.action.kept.backup_id)] if isinstance(step.action, ReturnContent) else []),
            ]
            for step in self.steps
        ]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


Answer = ObservedNode | Unreachable


def decide(
    fleet: Fleet,
    observed: Mapping[str, Answer],
    roles: Roles,
    now: datetime,
    *,
    deliberate: frozenset[UUID] = frozenset(),
    asked: frozenset[str] = ALL,
    placed: Callable[[UUID], str | None] = lambda _environment_id: None,
    kept: Kept = lambda _environment_id, _content_id: None,
    confirmed: Confirmed = lambda _environment_id, _content_id: False,
) -> Plan:
    """The plan that makes the observed nodes what the fleet says.

    Args:
        observed: by node name. A node that isn't in it wasn't asked: nothing is decided for it.
        deliberate: environments or nodes that a person asked to apply now; their mode ``report`` doesn't hold.
        asked: the fields that it was about, of which no hold keeps them.
        placed: the node where an environment was last seen; asked only for one that is missing where it should be
            and that no node in ``observed`` has.
        kept, confirmed: see ``going_back``; asked only where a document declares content that was left.
    """
    seen = _placements(observed)

    def where(environment_id: UUID) -> str | None:
        return seen.get(environment_id) or placed(environment_id)

    names = kept_names(fleet, observed, now)
    steps: list[Step] = []
    silent: list[Silent] = []
    for node in sorted(fleet.nodes.values(), key=lambda node: node.slug):
        answer = observed.get(node.slug)
        environments = fleet.environments_by_node.get(node.slug, ())
        if isinstance(answer, Unreachable):
            silent.append(Silent(node.slug, answer.reason, tuple(sorted(e.key for e in environments))))
        elif answer is not None:
            steps += _node_steps(fleet, node, answer, roles, now, deliberate, asked)
            silent += _unusable(node, answer, environments)
            usable = (one for one in environments if str(one.id) not in answer.unusable)
            for environment in sorted(usable, key=lambda environment: environment.key):
                steps += _environment_steps(
                    fleet, environment, node, answer, roles, now, deliberate, asked, where, kept, confirmed, names
                )
    steps.sort(key=lambda step: (isinstance(step.action, Desired), step.action.target))
    return Plan(fleet.revision, tuple(steps), tuple(silent), tuple(_orphans(fleet, observed)), fleet.stalled)


def _unusable(node: NodeEntry, answer: ObservedNode, environments: Sequence[EnvironmentEntry]) -> Iterator[Silent]:
    """What of the answer is set aside: those environments' state is unknown, and that of the node's others is not."""
    declared = {str(environment.id): environment.key for environment in environments}
    for about, reason in sorted(answer.unusable.items()):
        yield Silent(node.slug, f"Of {about}: {reason}", (declared[about],) if about in declared else ())


def _placements(observed: Mapping[str, Answer]) -> dict[UUID, str]:
    return {
        UUID(environment_id): name
        for name, answer in observed.items()
        if isinstance(answer, ObservedNode)
        for environment_id in answer.environments
    }


def _node_steps(
    fleet: Fleet,
    node: NodeEntry,
    answer: ObservedNode,
    roles: Roles,
    now: datetime,
    deliberate: frozenset[UUID],
    asked: frozenset[str],
) -> Iterator[Step]:
    # A stalled document says nothing that may be acted on; a decommissioned host is somebody else's.
    if node.stalled or node.manifest.spec.state != "active":
        return
    variables = fleet.node_variables(node.id)
    changes = diff_node(variables, roles.node, answer)
    holds = holding(node.manifest.spec.reconcile.holds, now, asked if node.id in deliberate else ())
    if holds and answer.applied and (less := withheld(variables, answer.applied, holds)):
        variables = less.variables
        changes = told(changes, diff_node(variables, roles.node, answer), holds)
    if not changes:
        return
    verdict, reason = _verdict(
        node.manifest.spec.reconcile, _windows(fleet), answer.hold, changes, now, node.id in deliberate
    )
    yield Step(ProvisionNode(node.slug, node.id, variables), changes, verdict, reason)


def _environment_steps(
    fleet: Fleet,
    environment: EnvironmentEntry,
    node: NodeEntry,
    answer: ObservedNode,
    roles: Roles,
    now: datetime,
    deliberate: frozenset[UUID],
    asked: frozenset[str],
    where: Callable[[UUID], str | None],
    kept: Kept,
    confirmed: Confirmed,
    names: Mapping[str, tuple[UUID, str]],
) -> Iterator[Step]:
    if environment.stalled or node.manifest.spec.state != "active":
        return
    desired, there = fleet.environment_variables(environment.id), answer.environments.get(str(environment.id))
    lifted = asked if environment.id in deliberate else frozenset()
    under = under_holds(environment, desired, there, now, lifted)
    variables = under.variables
    changes = diff_environment(desired, roles.environment, there)
    if under.holds:
        changes = told(changes, diff_environment(variables, roles.environment, there), under.holds)
    if there is not None and there.applied is not None:
        changes += tuple(changes_of(variables, there, now, deliberate=environment.id in deliberate))
    if not changes:
        return
    verdict, reason = _verdict(
        environment.manifest.spec.reconcile, _windows(fleet), answer.hold, changes, now, environment.id in deliberate
    )
    action = replace(_action(environment, variables, node, there, kept), held_options=under.options)
    step = Step(action, changes, verdict, reason)
    if harm := _harm(environment, action, node, answer, there, where, names):
        step = replace(step, verdict=Verdict.BLOCKED, reason=harm)
    elif isinstance(action, ReturnContent) and not confirmed(environment.id, UUID(variables.content.id)):
        step = replace(step, verdict=Verdict.BLOCKED, reason=want_of_confirmation(action), unconfirmed=True)
    yield step


def _action(
    environment: EnvironmentEntry,
    variables: EnvironmentVariables,
    node: NodeEntry,
    there: ObservedEnvironment | None,
    kept: Kept,
) -> Desired:
    """What brings the environment to where it should be."""
    if there and there.applied and is_left(variables, there.applied):
        found = kept(environment.id, UUID(variables.content.id))
        if found:
            is_replaced = there.applied.content_origin == "search-replace"
            return ReturnContent(node.slug, node.id, environment.id, variables, found, is_replaced)
    return _kind(variables, there)(node.slug, node.id, environment.id, variables)


def _kind(variables: EnvironmentVariables, there: ObservedEnvironment | None) -> type[Declared]:
    """New content, else new code, else configuring alone."""
    applied = there.applied if there else None
    contents, releases = (applied.contents, applied.releases) if applied else ((), ())
    if variables.content.id not in contents and variables.content.origin in BRINGING:
        return BRINGING[variables.content.origin]
    release = variables.release
    # A release that the node still has is only switched to.
    if release.id in releases:
        return ConfigureEnvironment
    if release.origin in DERIVING:
        return DERIVING[release.origin]
    return DeployRelease if release.source_type and release.origin is None else ConfigureEnvironment


def _harm(
    environment: EnvironmentEntry,
    action: Desired,
    node: NodeEntry,
    answer: ObservedNode,
    there: ObservedEnvironment | None,
    where: Callable[[UUID], str | None],
    names: Mapping[str, tuple[UUID, str]],
) -> str | None:
    """Why applying now would lose something or cannot work."""
    variables = action.variables
    # Creating it here would show an empty site where the real one is a node away.
    if there is None and (elsewhere := where(environment.id)) not in {None, node.slug}:
        return f"{environment.key} is on node {elsewhere}. Set spec.node back to {elsewhere}."
    if answer.applied is None:
        return f"Node {node.slug} is not provisioned yet."
    if impossible := _no_source(variables, there) or kept_elsewhere(variables, names):
        return impossible
    if there is None or there.applied is None:
        return None
    if is_left(variables, there.applied):
        refused = refusal(variables, there.applied, action.kept if isinstance(action, ReturnContent) else None)
        if refused:
            return refused
    return another_version(variables, there.applied)


def _no_source(variables: EnvironmentVariables, there: ObservedEnvironment | None) -> str | None:
    """Why what is declared cannot be made: an update, for one, is made of a release that the node has."""
    release, applied = variables.release, there.applied if there else None
    if applied is None and variables.content.origin == "search-replace":
        return "There is nothing yet to replace a text in. Restore a backup: `trueup backup list` shows them."
    if release.origin not in DERIVING or (applied and release.id in applied.releases):
        return None
    if applied is None:
        return f"There is nothing to {release.origin} yet. Give spec.release another origin first."
    if release.made_from and release.made_from not in applied.releases:
        done = _DONE[release.origin]
        return f"The node does not have release {release.made_from}, which is to be {done}. Correct made_from."
    served = applied.release_id
    if release.origin == "adopt" and release.made_from not in {None, served}:
        # What is there of it now is not what somebody found changed on what was served then.
        return (
            f"Release {release.made_from} was to be adopted as it was served, and {served} is served by now. Revert "
            "the adoption, check for drift, and adopt again."
        )
    return None


_DONE = {"update": "updated", "adopt": "adopted", "discard": "put right"}


def _windows(fleet: Fleet) -> Sequence[Window]:
    return fleet.platform.spec.reconcile.windows


def _verdict(
    reconcile: Reconcile,
    everywhere: Sequence[Window],
    hold: str | None,
    changes: tuple[Change, ...],
    now: datetime,
    deliberate: bool,
) -> tuple[Verdict, str | None]:
    if hold is not None:
        return Verdict.PAUSED, f"The node is on hold: {hold or 'no reason given'}"
    if not any(change.is_due for change in changes):
        held = next((change for change in changes if change.heals), None)
        return Verdict.REPORT, f"{held.field} is {held.held}." if held else "Nothing here is healed by applying."
    mode = effective_mode(reconcile, now)
    if mode is ReconcileMode.PAUSED:
        return Verdict.PAUSED, reconcile.reason or "spec.reconcile.mode is paused."
    if mode is ReconcileMode.REPORT and not deliberate:
        return Verdict.REPORT, reconcile.reason or "spec.reconcile.mode is report."
    if not deliberate and (reason := closed(everywhere, now) or closed(reconcile.windows, now)):
        return Verdict.WAITING, reason
    return Verdict.APPLY, None


def _orphans(fleet: Fleet, observed: Mapping[str, Answer]) -> Iterator[Orphan]:
    for name, answer in sorted(observed.items()):
        if isinstance(answer, ObservedNode):
            for environment_id, there in sorted(answer.environments.items()):
                if UUID(environment_id) not in fleet.environments:
                    yield Orphan(name, environment_id, _former_key(there))


def _former_key(there: ObservedEnvironment) -> str | None:
    variables = there.applied.variables if there.applied else {}
    names = [variables.get("site"), variables.get("slug")]
    # It is told as part of a command to type.
    slugs = [name for name in names if isinstance(name, str) and re.fullmatch(SLUG_PATTERN, name)]
    return "/".join(slugs) if slugs == names else None


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
                "changes": [change.data() for change in step.changes],
            }
            for step in plan.steps
        ],
        "silent": [asdict(silent) for silent in plan.silent],
        "orphans": [asdict(orphan) for orphan in plan.orphans],
        "stalled": [stalled.data() for stalled in plan.stalled],
    }
