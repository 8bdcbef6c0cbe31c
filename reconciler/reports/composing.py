"""Makes a report of what is known at one moment: desired state, the plan, last answers, drift checks, logins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.observed import ObservedNode
from reconciler.core.plan import Answer, Plan, Step, Verdict
from reconciler.core.policy import Reconcile, effective_mode
from reconciler.core.status import DriftStatus
from reconciler.reports.causes import told
from reconciler.reports.comparing import changes
from reconciler.reports.findings import Facts, findings_of_environment, findings_of_node, ignored_of, notices_of
from reconciler.reports.model import (
    Counts,
    Difference,
    EnvironmentDrift,
    Ignored,
    NodeDrift,
    OrphanFound,
    Report,
    ReportTrigger,
    StalledDocument,
    SubjectStatus,
    printable,
)

NAMED, NAMED_IN_ALL = 100, 2000
"""Differences of one environment or node, and of the whole fleet, that a report names; the rest is counted."""


S = TypeVar("S", EnvironmentDrift, NodeDrift)


@dataclass(frozen=True)
class Occasion:
    """Which report this is, and why it is made."""

    id: UUID
    at: datetime
    trigger: ReportTrigger
    requested_by: str | None = None


def compose(occasion: Occasion, facts: Facts) -> Report:
    """The report. Nothing in it is newer than the facts."""
    fleet, plan = facts.fleet, facts.plan
    steps = _Steps(plan)
    bound = _Bound()
    nodes = tuple(
        bound.to(_node(node, facts, steps, occasion.at))
        for node in sorted(fleet.nodes.values(), key=lambda node: node.slug)
    )
    environments = tuple(
        bound.to(_environment(one, facts, steps, occasion.at))
        for one in sorted(fleet.environments.values(), key=lambda environment: environment.key)
    )
    orphans = tuple(OrphanFound(node=one.node, environment_id=printable(one.environment_id)) for one in plan.orphans)
    stalled = tuple(
        StalledDocument(
            path=printable(facts.located(one.path)),
            line=one.line,
            message=printable(one.message),
            since=facts.committed_at(one.path),
        )
        for one in fleet.stalled
    )
    counts = _counts(environments, nodes, len(stalled))
    report = Report(
        id=occasion.id,
        created_at=occasion.at,
        trigger=occasion.trigger,
        requested_by=occasion.requested_by and printable(occasion.requested_by),
        revision=fleet.revision,
        status=_status(counts),
        headline="",
        counts=counts,
        environments=environments,
        nodes=nodes,
        orphans=orphans,
        stalled=stalled,
        ignored=_ignored(facts),
        changes=(),
    )
    if facts.previous:
        report = report.model_copy(update={"changes": changes(facts.previous, report)})
    return report.model_copy(update={"headline": headline(report)})


class _Bound:
    """Keeps a report to a size that can be sent."""

    def __init__(self) -> None:
        self._left = NAMED_IN_ALL

    def to(self, subject: S) -> S:
        found = subject.differences
        named = min(len(found), NAMED, self._left)
        self._left -= named
        if named == len(found):
            return subject
        return subject.model_copy(update={"differences": found[:named], "more_differences": len(found) - named})


class _Steps:
    """A plan's steps by what they are for; a search for each of a thousand environments would go through all."""

    def __init__(self, plan: Plan) -> None:
        self.environments: dict[UUID, Step] = {}
        self.nodes: dict[UUID, Step] = {}
        for step in plan.steps:
            environment_id = getattr(step.action, "environment_id", None)
            if environment_id is None:
                self.nodes[step.action.node_id] = step
            else:
                self.environments[environment_id] = step


def _environment(environment: EnvironmentEntry, facts: Facts, steps: _Steps, now: datetime) -> EnvironmentDrift:
    fleet, node = facts.fleet, facts.fleet.node_of(environment)
    step, check = steps.environments.get(environment.id), facts.checks.get(environment.id)
    looked_at = _looked_at(environment, node, facts)
    found = tuple(findings_of_environment(environment, looked_at, step, facts)) if looked_at else ()
    site = fleet.site_of(environment)
    return EnvironmentDrift(
        environment=environment.key,
        site_name=printable(site.name if site else environment.site),
        node=environment.manifest.spec.node,
        status=_subject_status(environment, looked_at is not None, found),
        notices=tuple(notices_of(step if looked_at else None, facts.drills.get(environment.id))),
        checked_at=check.at if check else None,
        **_common(environment, node, facts, step, found, now),
    )


def _node(node: NodeEntry, facts: Facts, steps: _Steps, now: datetime) -> NodeDrift:
    step, looked_at = steps.nodes.get(node.id), _looked_at(node, node, facts)
    found = tuple(findings_of_node(node, looked_at, step, facts)) if looked_at else ()
    return NodeDrift(
        node=node.slug,
        environments=len(facts.fleet.environments_by_node.get(node.slug, ())),
        # Nothing is asked of a host that was given back, so nothing of it is unknown.
        status=_subject_status(node, looked_at is not None or not _is_in_use(node), found),
        notices=(),
        **_common(node, node, facts, step, found, now),
    )


def _common(
    entry: EnvironmentEntry | NodeEntry,
    node: NodeEntry | None,
    facts: Facts,
    step: Step | None,
    found: tuple[Difference, ...],
    now: datetime,
) -> dict[str, Any]:
    """What is told of environments and nodes alike."""
    answer, mode = _answer(entry, node, facts), entry.manifest.spec.reconcile
    seen = facts.seen.get(node.id) if node else None
    name = entry.slug if isinstance(entry, NodeEntry) else entry.key
    return {
        "id": entry.id,
        "note": _note(entry, node, answer),
        "unknown_since": None if answer is None or isinstance(answer, ObservedNode) else answer.since,
        "mode": effective_mode(mode, now),
        "paused": _paused(mode, answer, now),
        "waits": printable(step.reason or "") if step and step.verdict is Verdict.WAITING else None,
        "differences": found,
        "more_differences": 0,
        "would": _would(step, found, f"trueup apply {name}"),
        "observed_at": seen.observed_at if seen else None,
    }


def _answer(entry: EnvironmentEntry | NodeEntry, node: NodeEntry | None, facts: Facts) -> Answer | None:
    """What the node answered, as far as it can be used of this environment."""
    answer = facts.answers.get(node.slug) if node else None
    return answer.about(entry.id) if answer and isinstance(entry, EnvironmentEntry) else answer


def _looked_at(entry: EnvironmentEntry | NodeEntry, node: NodeEntry | None, facts: Facts) -> ObservedNode | None:
    """What its node answered, if that is to be held against its document."""
    answer = _answer(entry, node, facts)
    return answer if isinstance(answer, ObservedNode) and not entry.stalled and _is_in_use(node) else None


def _is_in_use(node: NodeEntry | None) -> bool:
    return node is not None and node.manifest.spec.state == "active"


def _subject_status(
    entry: EnvironmentEntry | NodeEntry, is_known: bool, found: tuple[Difference, ...]
) -> SubjectStatus:
    if entry.stalled:
        return SubjectStatus.STALLED
    if not is_known:
        return SubjectStatus.UNKNOWN
    return SubjectStatus.DRIFTED if found else SubjectStatus.CLEAN


def _note(entry: EnvironmentEntry | NodeEntry, node: NodeEntry | None, answer: Answer | None) -> str | None:
    """Why nothing more is known, or nothing is decided."""
    if entry.stalled:
        return printable(f"Its document is stalled: {entry.stalled.message}")
    if node is None:
        return "No document defines its node."
    if not _is_in_use(node):
        return "Decommissioned." if entry is node else f"Node {node.slug} is decommissioned."
    if answer is None:
        return f"Node {node.slug} was never asked."
    if not isinstance(answer, ObservedNode):
        return printable(f"Node {node.slug} does not answer: {answer.reason}")
    return None


def _paused(reconcile: Reconcile, answer: Answer | None, now: datetime) -> str | None:
    if isinstance(answer, ObservedNode) and answer.hold is not None:
        return printable(f"The node is on hold: {answer.hold or 'no reason given'}")
    if effective_mode(reconcile, now).value != "paused":
        return None
    until = f" (until {told(reconcile.until)})" if reconcile.until else ""
    return printable(f"{reconcile.reason or 'spec.reconcile.mode is paused.'}{until}")


def _would(step: Step | None, found: tuple[Difference, ...], command: str) -> str | None:
    """What a reconcile does about the differences, in one sentence or two."""
    if not found:
        return None
    if step is not None and step.verdict is Verdict.REPORT:
        healed = sum(difference.heals for difference in found)
    else:
        healed = sum(difference.heals and difference.held is None for difference in found)
    if step is None or not healed:
        return "Nothing: applying mends none of this. A person decides."
    part = "" if healed == len(found) else f" That mends {healed} of {len(found)} differences."
    reason = printable(step.reason or "")
    return {
        Verdict.APPLY: f"The loop does it: {step.action.verb}.{part}",
        Verdict.REPORT: f"Nothing by itself: {reason} `{command}` would {step.action.verb} it.{part}",
        Verdict.PAUSED: f"Nothing while it is paused: {reason}",
        Verdict.WAITING: f"Not now. {reason} After that the loop does it: {step.action.verb}.{part}",
        Verdict.BLOCKED: f"Nothing, it is blocked: {reason}",
    }[step.verdict]


def _ignored(facts: Facts) -> Ignored:
    total: Counter[str] = Counter()
    for environment_id in facts.fleet.environments:
        if check := facts.checks.get(environment_id):
            total.update(ignored_of(check))
    return Ignored(moved=total["moved"], stayed=total["stayed"], protected=total["protected"])


def _counts(environments: tuple[EnvironmentDrift, ...], nodes: tuple[NodeDrift, ...], stalled: int) -> Counts:
    subjects = (*environments, *nodes)
    statuses = Counter(one.status for one in subjects)
    return Counts(
        environments=len(environments),
        nodes=len(nodes),
        drifted=statuses[SubjectStatus.DRIFTED],
        unknown=statuses[SubjectStatus.UNKNOWN],
        stalled=stalled,
        paused=sum(one.paused is not None for one in subjects),
        waiting=sum(one.waits is not None for one in subjects),
    )


def _status(counts: Counts) -> DriftStatus:
    if counts.drifted:
        return DriftStatus.DRIFTED
    return DriftStatus.UNKNOWN if counts.unknown or counts.stalled else DriftStatus.CLEAN


def headline(report: Report) -> str:
    """The report in one line."""
    fleet = f"{_number(report.counts.environments, 'environment')} on {_number(report.counts.nodes, 'node')}"
    if report.status is DriftStatus.CLEAN:
        parts = [f"All clean: {fleet}{_as_of(report)}", *_remarks(report)]
    else:
        parts = [f"{fleet}: {', '.join(_troubles(report))}", *_remarks(report)]
    return "; ".join(parts) + "."


def _troubles(report: Report) -> Iterator[str]:
    counts = report.counts
    if counts.drifted:
        yield f"{counts.drifted} drifted"
    if counts.unknown:
        yield f"{counts.unknown} unknown"
    if counts.stalled:
        yield _number(counts.stalled, "stalled document")


def _remarks(report: Report) -> Iterator[str]:
    if report.counts.paused:
        yield f"{report.counts.paused} paused"
    if report.counts.waiting:
        yield f"{report.counts.waiting} waiting"
    if report.orphans:
        yield _number(len(report.orphans), "orphan")
    if noticed := sum(bool(one.notices) for one in report.environments):
        yield _number(noticed, "certificate to look at", "certificates to look at")
    if resolved := sum(change.kind == "gone" for change in report.changes):
        yield f"{resolved} resolved since the report before"
    unchecked = sum(one.checked_at is None and one.status is SubjectStatus.CLEAN for one in report.environments)
    if unchecked:
        yield f"the files of {_number(unchecked, 'environment')} were never checked"


def _as_of(report: Report) -> str:
    moments = [one.observed_at for one in report.subjects if one.observed_at]
    return f", as last seen {told(min(moments))}" if moments else ""


def _number(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
