"""What holds back steps that could go each by itself: what failed before, in which order, how many at once.

What a person asks for is never held back here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from reconciler.core.actions import Desired, ProvisionNode
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.fleet import Fleet
from reconciler.core.manifests import EnvironmentType
from reconciler.core.observed import ObservedNode
from reconciler.core.plan import Answer, Plan, Step, Verdict
from reconciler.core.policy import PlatformReconcile


class Checked(Protocol):
    """Whether a release served when it was last asked."""

    @property
    def health(self) -> str: ...
    @property
    def checked_at(self) -> datetime: ...


class Known(Protocol):
    """What is known beyond a plan. Asked only where it can hold something back."""

    def whole(self) -> Plan:
        """The plan for the whole fleet as it was last seen, with nothing held back yet."""

    def answer(self, node: str) -> Answer | None:
        """What the node said when it was last asked; None: it never was."""

    def last_commit(self, path: str) -> str | None:
        """The commit that touched the document last."""

    def applied_at(self, environment: EnvironmentEntry) -> datetime | None:
        """When the environment was last applied; None: never, as far as was seen."""

    def checked(self, environment: EnvironmentEntry) -> Checked | None:
        """The last look at the declared release."""

    def unhealthy(self, environment_id: UUID, digest: str) -> str | None:
        """Why the last attempt to apply just these variables ended unhealthy; None: it did not."""


def restrain(plan: Plan, fleet: Fleet, known: Known, deliberate: frozenset[UUID]) -> Plan:
    """The plan with ``waiting`` for each step that the loop may not take yet."""
    held: dict[UUID, str] = {}
    for action in _free(plan, deliberate):
        environment = fleet.environment(action.environment_id)
        if reason := _quarantined(action, known) or _out_of_turn(environment, fleet, known):
            held[environment.id] = reason
    limits = fleet.platform.spec.reconcile
    left = [action.environment_id for action in _free(plan, deliberate) if action.environment_id not in held]
    if limits.blast_limit and left and (reason := too_many_environments(known.whole(), limits)):
        held |= dict.fromkeys(left, f"{reason} {_BY_A_PERSON}")
    nodes = changed_in_use(plan, known.answer) - deliberate if limits.node_blast_limit else frozenset()
    if nodes and (reason := too_many_nodes(known.whole(), limits, known.answer)):
        held |= dict.fromkeys(nodes, f"{reason} {_BY_A_PERSON}")
    return replace(plan, steps=tuple(_waiting(step, held) for step in plan.steps)) if held else plan


def _free(plan: Plan, deliberate: frozenset[UUID]) -> Iterator[Desired]:
    """What the loop would do to environments."""
    for step in plan.to_apply:
        if isinstance(step.action, Desired) and step.action.environment_id not in deliberate:
            yield step.action


def _waiting(step: Step, held: dict[UUID, str]) -> Step:
    action = step.action
    reason = held.get(action.environment_id if isinstance(action, Desired) else action.node_id)
    return replace(step, verdict=Verdict.WAITING, reason=reason) if reason else step


def _quarantined(action: Desired, known: Known) -> str | None:
    why = known.unhealthy(action.environment_id, action.variables.digest())
    return f"{_QUARANTINED}: {why}" if why else None


_QUARANTINED = "Quarantined until its document changes"


def is_quarantined(step: Step) -> bool:
    """Whether the step waits because just this was unhealthy before."""
    return step.verdict is Verdict.WAITING and (step.reason or "").startswith(_QUARANTINED)


def _out_of_turn(environment: EnvironmentEntry, fleet: Fleet, known: Known) -> str | None:
    """Production comes after what the same commit changed in its site's other environments, once those are healthy.

    What is only being made holds nobody up: it may be made of production.
    """
    production = environment.manifest.spec.type is EnvironmentType.PRODUCTION
    if not production or known.applied_at(environment) is None:
        return None
    commit = known.last_commit(environment.path)
    for other in fleet.environments_by_site.get(environment.site, ()):
        same = other.id != environment.id and not other.stalled and known.last_commit(other.path) == commit
        if same and (reason := _unproven(other, known)):
            return f"{reason} The commit that changed it changed this environment, too."
    return None


def _unproven(other: EnvironmentEntry, known: Known) -> str | None:
    applied_at, step = known.applied_at(other), known.whole().for_environment(other.id)
    if applied_at is None:
        return None
    if step is not None and any(change.is_due for change in step.changes):
        return f"Waits for {other.key} to be applied."
    checked = known.checked(other)
    if checked is None or checked.checked_at <= applied_at:
        return f"Waits for a look at whether {other.key} serves."
    return None if checked.health == "healthy" else f"Waits for {other.key}, which is {checked.health}, to be healthy."


_BY_A_PERSON = "in platform.yaml. Review the plan, then run `trueup apply --require DIGEST`."


def too_many_environments(plan: Plan, limits: PlatformReconcile) -> str | None:
    """Why the environments that ``plan`` changes are too many to change at once; None: they aren't."""
    count, limit = sum(isinstance(step.action, Desired) for step in plan.to_apply), limits.blast_limit
    if limit is None or count <= limit:
        return None
    return f"{count} environments would change at once, more than the {limit} of spec.reconcile.blast_limit"


def too_many_nodes(plan: Plan, limits: PlatformReconcile, answer: Callable[[str], Answer | None]) -> str | None:
    """The same of nodes. ``answer``: what the node of that name said last."""
    count, limit = len(changed_in_use(plan, answer)), limits.node_blast_limit
    if limit is None or count <= limit:
        return None
    return f"{count} nodes would change at once, more than the {limit} of spec.reconcile.node_blast_limit"


def changed_in_use(plan: Plan, answer: Callable[[str], Answer | None]) -> frozenset[UUID]:
    """The nodes in use whose baseline ``plan`` changes: what is done on a new one disturbs nobody."""
    actions = (step.action for step in plan.to_apply)
    nodes = (action for action in actions if isinstance(action, ProvisionNode))
    return frozenset(action.node_id for action in nodes if _is_in_use(answer(action.node)))


def _is_in_use(answer: Answer | None) -> bool:
    return isinstance(answer, ObservedNode) and (answer.applied is not None or bool(answer.environments))
