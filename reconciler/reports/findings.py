"""The differences of one environment or node: what the plan says now, what the last drift check found in files.

A difference keeps the moments that an earlier report gave it. A new one is bounded: first seen now, or by the first of
the checks in a row that found it; not there at the last look before, or right after the last apply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from reconciler.core.actions import moment
from reconciler.core.changes import Cause, Change
from reconciler.core.drills import LastDrill
from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.fleet import Fleet
from reconciler.core.observed import Applied, ObservedEnvironment, ObservedNode, SshLogin
from reconciler.core.plan import Answer, Plan, Step
from reconciler.core.promotion import is_drift
from reconciler.reports.causes import Evidence, Login, RunByHand, Window, origin_of
from reconciler.reports.model import Difference, Report, Subject, SubjectStatus, printable

PLATFORM = "platform.yaml"
DEEP = ("core ", "release ", "uploads ", "content ")
"""Fields that only a drift check looks at."""
_NOTICED = frozenset({Cause.REFUSED, Cause.EXPIRING})


@dataclass(frozen=True)
class Check:
    """A drift check, as far as a report asks."""

    at: datetime
    differences: Sequence[Mapping[str, Any]]

    def found(self, field: str) -> bool:
        return any(one.get("field") == field for one in self.differences)


@dataclass(frozen=True)
class Facts:
    """All that a report is made of."""

    fleet: Fleet
    plan: Plan
    answers: Mapping[str, Answer]
    """The last of each node, by name."""
    seen: Mapping[UUID, ObservedNode]
    """The last that each node said, however long ago, by id."""
    checks: Mapping[UUID, Check]
    """The newest of each environment."""
    history: Callable[[UUID], Sequence[Check]]
    """An environment's checks, newest first; asked only where something was found that no report has told."""
    logins: Mapping[UUID, Sequence[Login]]
    """Magic logins, by environment."""
    ssh: Mapping[UUID, Sequence[SshLogin]]
    """Whom sshd let in, by node."""
    committed_at: Callable[[str], datetime | None]
    """When the document at a path last changed."""
    runs: Mapping[UUID, Sequence[RunByHand]] = field(default_factory=dict)
    """Playbooks run by hand, by environment or node that they were about."""
    previous: Report | None = None
    located: Callable[[str], str] = str
    """Where in the repository a document is."""
    drills: Mapping[UUID, LastDrill] = field(default_factory=dict)
    """The last drill of each environment's backups."""

    @cached_property
    def former(self) -> Mapping[UUID, Subject]:
        """What the previous report told, by id."""
        return {one.id: one for one in self.previous.subjects} if self.previous else {}


def findings_of_environment(
    environment: EnvironmentEntry, seen: ObservedNode, step: Step | None, facts: Facts
) -> Iterator[Difference]:
    """All that differs of an environment, given what its node answered."""
    there = seen.environments.get(str(environment.id))
    dater = _Dater(environment.id, environment.path, there.applied if there else None, seen, facts)
    node = facts.fleet.node_of(environment)
    known = Evidence(
        dater.applied,
        dater.committed_at,
        logins=facts.logins.get(environment.id, ()),
        ssh=facts.ssh.get(node.id, ()) if node else (),
        runs=[*facts.runs.get(environment.id, ()), *(facts.runs.get(node.id, ()) if node else ())],
        versions=_versions(there),
    )
    for change in step.changes if step else ():
        if change.cause not in _NOTICED:
            yield _of_change(change, dater, known)
    check = facts.checks.get(environment.id)
    for one in check.differences if check else ():
        if str(one["field"]).startswith(DEEP) and is_drift(one):
            yield _difference(
                str(one["field"]), one["desired"], one["observed"], str(one["cause"]), bool(one["heals"]), dater, known
            )


def findings_of_node(node: NodeEntry, seen: ObservedNode, step: Step | None, facts: Facts) -> Iterator[Difference]:
    """All that differs of a node's own baseline."""
    dater = _Dater(node.id, node.path, seen.applied, seen, facts)
    known = Evidence(
        dater.applied, dater.committed_at, ssh=facts.ssh.get(node.id, ()), runs=facts.runs.get(node.id, ())
    )
    for change in step.changes if step else ():
        yield _of_change(change, dater, known)


def notices_of(step: Step | None, drill: LastDrill | None) -> Iterator[str]:
    """What is told of an environment and is no drift: certificates, and a backup whose drill failed."""
    if drill and not drill.passed:
        yield printable(f"backup: its drill of {moment(drill.at)} failed: {drill.error}")
    for change in step.changes if step else ():
        if change.cause in _NOTICED:
            yield printable(f"{change.field}: {change.cause}; desired {change.desired}, observed {change.observed}")


def ignored_of(check: Check) -> Counter[str]:
    """How much the rules leave out of an environment's drift, by the rule's name."""
    found: Counter[str] = Counter()
    for one in check.differences:
        if "compared_with" not in one:
            continue
        for counts in one["counts"].values():
            found["moved"] += int(counts.get("moves", 0))
            found["stayed"] += int(counts.get("stays", 0))
        found["protected"] += sum(int(rows) for sides in one["protected"].values() for rows in sides.values())
    return found


def _versions(there: ObservedEnvironment | None) -> tuple[str, str] | None:
    """WordPress as it was applied and as it is, where the two differ."""
    applied = there.applied.wordpress_version if there and there.applied else None
    found = there.wordpress_version if there else None
    return (printable(applied), printable(found)) if applied and found and found != applied else None


def _of_change(change: Change, dater: _Dater, known: Evidence) -> Difference:
    found = _difference(change.field, change.desired, change.observed, change.cause, change.heals, dater, known)
    return found.model_copy(update={"held": change.held and printable(str(change.held))})


def _difference(
    field: str, desired: Any, observed: Any, cause: str, heals: bool, dater: _Dater, known: Evidence
) -> Difference:
    window = dater.window(field, cause)
    origin, evidence = origin_of(field, cause, window, known)
    return Difference(
        field=printable(field),
        desired=None if desired is None else printable(str(desired)),
        observed=None if observed is None else printable(str(observed)),
        cause=str(cause),
        origin=origin,
        evidence=evidence and printable(evidence),
        heals=heals,
        held=None,
        since=window.since,
        well_at=window.well_at,
    )


class _Dater:
    """Tells since when a difference of one environment or node is there."""

    def __init__(self, id_: UUID, path: str, applied: Applied | None, seen: ObservedNode, facts: Facts) -> None:
        self.applied = applied
        self._id = id_
        self._seen_at = seen.observed_at
        self._facts = facts
        self._former = facts.former.get(id_)
        self._told = {one.field: one for one in self._former.differences} if self._former else {}
        self.committed_at = self._moved_at(path)

    @cached_property
    def _history(self) -> Sequence[Check]:
        return self._facts.history(self._id)

    def _moved_at(self, path: str) -> datetime | None:
        """When the document changed; the platform's, where that came after the last apply and its own did not."""
        own, platform = self._facts.committed_at(path), self._facts.committed_at(PLATFORM)
        applied_at = self.applied.applied_at if self.applied else None
        if own and platform and applied_at and own <= applied_at < platform:
            return platform
        return own

    def window(self, field: str, cause: str) -> Window:
        if known := self._told.get(printable(field)):
            return Window(known.well_at, known.since)
        if field.startswith(DEEP):
            return self._by_checks(field)
        applied_at = self.applied.applied_at if self.applied else None
        if cause == Cause.DESIRED_MOVED and self.committed_at and self._is_later(self.committed_at, applied_at):
            return Window(None, self.committed_at)
        return Window(self._latest_before(self._seen_at, applied_at, self._looked_at()), self._seen_at)

    @staticmethod
    def _is_later(moment: datetime, than: datetime | None) -> bool:
        return than is None or moment > than

    def _looked_at(self) -> datetime | None:
        """When the previous report's look found the environment or node without this."""
        if self._former is None or self._former.status not in {SubjectStatus.CLEAN, SubjectStatus.DRIFTED}:
            return None
        # What it left unnamed may have been there.
        return None if self._former.more_differences else self._former.observed_at

    def _by_checks(self, field: str) -> Window:
        since, well_at = self._seen_at, None
        for check in self._history:
            if not check.found(field):
                well_at = check.at
                break
            since = check.at
        applied_at = self.applied.applied_at if self.applied else None
        return Window(self._latest_before(since, applied_at, well_at), since)

    @staticmethod
    def _latest_before(since: datetime, *moments: datetime | None) -> datetime | None:
        return max((moment for moment in moments if moment and moment < since), default=None)
