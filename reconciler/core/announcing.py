"""What a commit changes, and what became of that: in a state, a line and a comment. Pure.

A target that a later commit changed again is that one's matter: of the earlier one it is told that it was overtaken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from reconciler.core.changes import Cause
from reconciler.core.fleet import Fleet
from reconciler.core.plan import Plan, Step, Verdict
from reconciler.core.restraint import is_quarantined
from reconciler.core.review.views import prose


class CommitState(StrEnum):
    """As forges know it."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"


class Kind(StrEnum):
    ENVIRONMENT = "environment"
    NODE = "node"
    DOCUMENT = "document"
    """One that cannot be used; its ``id`` is its path."""


class Target(BaseModel):
    """Something that a commit changes."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    id: str
    name: str
    digest: str = ""
    """Of what it was to be by that commit."""


class Result(BaseModel):
    """How a target stands."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: CommitState
    reason: str
    """In words; of one that goes its way, what it is doing."""
    is_waiting: bool = False
    """It needs more than a moment."""
    digest: str = ""
    """What was declared when it failed: a later declaration doesn't make that undone."""


class Told(BaseModel):
    """What is to be told of a commit."""

    model_config = ConfigDict(frozen=True)

    state: CommitState
    description: str
    results: tuple[Result, ...] = ()


class Known(Protocol):
    """What is known beyond the plan."""

    def failure(self, target: Target) -> str | None:
        """Why the last job that brought it ended badly, if that was after the commit was taken over."""

    def is_failed(self, environment_id: UUID) -> bool:
        """Whether the environment was left failed, so that the loop doesn't touch it."""

    def unhealthy(self, environment_id: UUID) -> str | None:
        """What is wrong with the declared release, which was asked since it is served."""

    def has_answered(self, node: str) -> bool:
        """Whether the node was ever asked."""


# What a commit changes


def changed_targets(before: Fleet, after: Fleet) -> tuple[Target, ...]:
    """What is to be something else by ``after`` than by ``before``. What has no document any more is left as it is."""
    return (*_nodes(before, after), *_environments(before, after), *_documents(before, after))


def _nodes(before: Fleet, after: Fleet) -> Iterator[Target]:
    for node in sorted(after.nodes.values(), key=lambda one: one.slug):
        target = _target(Kind.NODE, node.id, after)
        if target and target != _target(Kind.NODE, node.id, before):
            yield target


def _environments(before: Fleet, after: Fleet) -> Iterator[Target]:
    for environment in sorted(after.environments.values(), key=lambda one: one.key):
        target = _target(Kind.ENVIRONMENT, environment.id, after)
        former = _target(Kind.ENVIRONMENT, environment.id, before)
        if target and (target != former or _version(environment.id, after) != _version(environment.id, before)):
            yield target


def _version(environment_id: UUID, fleet: Fleet) -> str:
    return fleet.environment_variables(environment_id).wordpress_version


def _documents(before: Fleet, after: Fleet) -> Iterator[Target]:
    known = {(stalled.path, stalled.message) for stalled in before.stalled}
    for stalled in after.stalled:
        if (stalled.path, stalled.message) not in known:
            yield Target(kind=Kind.DOCUMENT, id=stalled.path, name=stalled.path)


_RECORDED = frozenset({"update", "adopt"})
"""Releases whose versions are recorded by a commit of our own once they are made: that one overtakes nobody."""


def _target(kind: Kind, id_: UUID, fleet: Fleet) -> Target | None:
    """None: there is none, or nothing may be done to it."""
    if kind is Kind.NODE:
        node = fleet.nodes.get(id_)
        if node is None or node.stalled or node.manifest.spec.state != "active":
            return None
        return Target(kind=kind, id=str(id_), name=node.slug, digest=fleet.node_variables(id_).digest())
    environment = fleet.environments.get(id_)
    node = fleet.node_of(environment) if environment else None
    if environment is None or environment.stalled or node is None or node.manifest.spec.state != "active":
        return None
    variables = fleet.environment_variables(id_)
    if variables.release.origin in _RECORDED:
        variables = variables.model_copy(update={"wordpress_version": ""})
    return Target(kind=kind, id=str(id_), name=environment.key, digest=f"{node.slug} {variables.digest()}")


# What became of it

_APPLIED, _OVERTAKEN = "Applied.", "Overtaken by a later commit."


def told_of(targets: Sequence[Target], before: Sequence[Result], fleet: Fleet, plan: Plan, known: Known) -> Told:
    """How a commit stands that changes ``targets``.

    Args:
        before: how they stood when they were last looked at.
        plan: for all nodes of the targets, by what they answered last.
    """
    if not targets:
        return Told(state=CommitState.SUCCESS, description="Nothing to apply.")
    earlier = {result.name: result for result in before}
    results = tuple(
        _of_document(target, earlier.get(target.name), fleet)
        if target.kind is Kind.DOCUMENT
        else _result(target, earlier.get(target.name), fleet, plan, known)
        for target in targets
    )
    failed = [result for result in results if result.state is CommitState.FAILURE]
    pending = [result for result in results if result.state is CommitState.PENDING]
    count = counted(targets)
    if failed:
        return Told(state=CommitState.FAILURE, description=_first_of(failed), results=results)
    if pending:
        waiting = [result for result in pending if result.is_waiting]
        change = "changes" if len(targets) == 1 else "change"
        said = _first_of(waiting) if waiting else f"{count} {change}."
        return Told(state=CommitState.PENDING, description=said, results=results)
    applied = [target for target, result in zip(targets, results, strict=True) if result.reason == _APPLIED]
    said = f"Applied: {counted(applied)}." if applied else "Overtaken by later commits."
    return Told(state=CommitState.SUCCESS, description=said, results=results)


def held(reason: str, message: str) -> Told:
    """Of a commit that was fetched and not taken over."""
    return Told(state=CommitState.FAILURE, description=f"Held, not applied ({reason}): {message}")


def counted(targets: Sequence[Target]) -> str:
    """``2 environments and 1 node``."""
    numbers = [(kind, sum(1 for target in targets if target.kind is kind)) for kind in Kind]
    words = [f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in numbers if number]
    return " and ".join(words)


def _first_of(results: Sequence[Result]) -> str:
    more = f" (and {len(results) - 1} more)" if len(results) > 1 else ""
    return f"{results[0].name}{more}: {results[0].reason}"


def _result(target: Target, earlier: Result | None, fleet: Fleet, plan: Plan, known: Known) -> Result:
    now = _target(target.kind, UUID(target.id), fleet)
    declared = now.digest if now else ""
    if earlier and earlier.state is CommitState.FAILURE and earlier.digest != declared:
        return earlier
    if declared != target.digest:
        return Result(name=target.name, state=CommitState.SUCCESS, reason=_OVERTAKEN)
    failed = _failed(target, plan, known)
    if failed:
        return Result(name=target.name, state=CommitState.FAILURE, reason=failed, digest=declared)
    waits = _waits(target, fleet, plan, known)
    if waits:
        return Result(name=target.name, state=CommitState.PENDING, reason=waits, is_waiting=True)
    if _is_outstanding(_step(target, plan)):
        return Result(name=target.name, state=CommitState.PENDING, reason="Being applied.")
    return Result(name=target.name, state=CommitState.SUCCESS, reason=_APPLIED)


def _of_document(target: Target, earlier: Result | None, fleet: Fleet) -> Result:
    stalled = next((one for one in fleet.stalled if one.path == target.id), None)
    if stalled is None:
        if earlier and earlier.state is CommitState.FAILURE:
            return earlier
        return Result(name=target.name, state=CommitState.SUCCESS, reason=_OVERTAKEN)
    return Result(name=target.name, state=CommitState.FAILURE, reason=f"Not used: {stalled.message}")


def _step(target: Target, plan: Plan) -> Step | None:
    id_ = UUID(target.id)
    return plan.for_node(id_) if target.kind is Kind.NODE else plan.for_environment(id_)


def _is_outstanding(step: Step | None) -> bool:
    """Whether it is not what was declared yet; what was changed on a node since is no matter of the commit."""
    wanted = {Cause.DESIRED_MOVED, Cause.MISSING, Cause.UNFINISHED}
    return step is not None and any(change.heals and change.cause in wanted for change in step.changes)


_REFUSED = {Verdict.BLOCKED: "Blocked", Verdict.PAUSED: "Paused"}


def _failed(target: Target, plan: Plan, known: Known) -> str | None:
    step = _step(target, plan)
    is_environment = target.kind is Kind.ENVIRONMENT
    if step is None or not _is_outstanding(step):
        return known.unhealthy(UUID(target.id)) if is_environment else None
    if word := _REFUSED.get(step.verdict):
        return f"{word}: {step.reason}"
    if failure := known.failure(target):
        return failure
    if is_quarantined(step):
        # The first line says what happened; what was printed on a node is not for everybody.
        return (step.reason or "").partition("\n")[0]
    if is_environment and known.is_failed(UUID(target.id)):
        return "It is failed, and left alone. Look at its last job, then reset it."
    return None


def _waits(target: Target, fleet: Fleet, plan: Plan, known: Known) -> str | None:
    node = target.name
    if target.kind is Kind.ENVIRONMENT:
        node = fleet.environment(UUID(target.id)).manifest.spec.node
    if any(silent.node == node for silent in plan.silent):
        return f"Node {node} does not answer."
    if not known.has_answered(node):
        return f"Node {node} was not asked yet."
    step = _step(target, plan)
    if step is None or not _is_outstanding(step):
        return None
    if step.verdict is Verdict.REPORT:
        return f"Only told: {step.reason} Apply it with `trueup apply`."
    return step.reason if step.verdict is Verdict.WAITING else None


# As a comment


MOST_ROWS = 100
_WORDS = {CommitState.PENDING: "waits", CommitState.SUCCESS: "done", CommitState.FAILURE: "failed"}


def comment(commit: str, told: Told) -> str:
    """Markdown in which nothing mentions, links or embeds what was not meant to be."""
    title = "Applied" if told.state is CommitState.SUCCESS else "Not applied"
    lines = [f"**Trueup: {title}.** {commit[:12]}: {prose(' '.join(told.description.split()))}"]
    if told.results:
        lines += ["", "| what | | |", "|---|---|---|"]
        lines += [
            f"| {prose(one.name)} | {_WORDS[one.state]} | {prose(' '.join(one.reason.split())).replace('|', '¦')} |"
            for one in told.results[:MOST_ROWS]
        ]
    if len(told.results) > MOST_ROWS:
        lines += ["", f"And {len(told.results) - MOST_ROWS} more."]
    return "\n".join(lines)
