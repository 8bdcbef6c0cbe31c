"""A pull request's plan: two versions of the documents, held against each other and against what was last observed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from reconciler.core.actions import Desired, ProvisionNode
from reconciler.core.entries import EnvironmentEntry, Stalled
from reconciler.core.fleet import Fleet
from reconciler.core.manifests import EnvironmentType, Versions
from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.core.plan import Answer, Plan, Step, Verdict, decide
from reconciler.core.restraint import changed_in_use, too_many_environments, too_many_nodes
from reconciler.core.review.effects import (
    ON_RECORD_ALONE,
    Effect,
    courses,
    effect_of,
    needs_storage,
    outcome,
)
from reconciler.core.review.facts import Fact, of_documents, of_environment
from reconciler.core.snapshot import FleetSnapshot

__all__ = ["Item", "Kind", "Review", "review"]


class Kind(StrEnum):
    """In the order in which they are told."""

    BROKEN = "broken"
    CREATED = "created"
    CHANGED = "changed"
    NODE = "node"
    PLATFORM = "platform"
    LEFT = "left"
    """Its document is gone: nothing is removed, and nobody looks after it any more."""
    REPLACED = "replaced"
    """Content that is there now is gone afterwards."""
    DESTROYED = "destroyed"
    """Removed with all that belongs to it, at its time."""


LOUD = frozenset({Kind.LEFT, Kind.REPLACED, Kind.DESTROYED})


@dataclass(frozen=True)
class Item:
    """What the change means for one environment, node, or the platform."""

    kind: Kind
    target: str
    node: str
    facts: tuple[Fact, ...] = ()
    outcome: str = ""
    effect: Effect = ON_RECORD_ALONE
    notes: tuple[str, ...] = ()
    action: str | None = None


@dataclass(frozen=True)
class Review:
    """``plan`` is that of the head: its digest is the one that ``apply --require`` compares after the merge."""

    base: str
    head: str
    items: tuple[Item, ...]
    pending: tuple[Step, ...]
    """Steps that are due without this change, too; the digest is over them as well."""
    unchanged: int
    plan: Plan
    snapshot: FleetSnapshot | None
    broken_before: tuple[Stalled, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str | None:
        """None: not told where it could not be held to: without an observation, or with documents that are stalled."""
        return self.plan.digest() if self.snapshot and not self.plan.stalled else None

    @property
    def total(self) -> str:
        """In one line: ``2 environments change, 1 is created, 1 is destroyed, 997 are unchanged``."""
        said = [_count(self.counts.get(kind, 0), *words) for kind, words in _TOTALS.items()]
        rest = f"{self.unchanged} unchanged"
        return ", ".join([*(one for one in said if one), rest]) + "."

    @property
    def is_empty(self) -> bool:
        return not self.items


_TOTALS = {
    Kind.BROKEN: ("document cannot be used", "documents cannot be used"),
    Kind.CHANGED: ("environment changes", "environments change"),
    Kind.CREATED: ("is created", "are created"),
    Kind.NODE: ("node changes", "nodes change"),
    Kind.LEFT: ("is no longer looked after", "are no longer looked after"),
    Kind.REPLACED: ("loses its content", "lose their content"),
    Kind.DESTROYED: ("is destroyed", "are destroyed"),
}


def _count(number: int, one: str, many: str) -> str | None:
    return f"{number} {one if number == 1 else many}" if number else None


def review(base: Fleet, head: Fleet, snapshot: FleetSnapshot | None, now: datetime) -> Review:
    """What merging ``head`` over ``base`` means, as far as ``snapshot`` knows the nodes."""
    answers = snapshot.answers(head) if snapshot else {}
    plan = _plan(head, snapshot, answers, now)
    comparison = _Comparison(base, head, plan, answers, snapshot, now)
    items = sorted(comparison.items(), key=lambda item: (list(Kind).index(item.kind), item.target))
    touched = {item.target for item in items}
    counts: dict[str, int] = {}
    for item in items:
        counts[item.kind] = counts.get(item.kind, 0) + 1
    known = {one.key for one in head.environments.values() if not one.stalled}
    return Review(
        base=base.revision,
        head=head.revision,
        items=tuple(items),
        pending=tuple(comparison.held_back(step) for step in plan.steps if step.action.target not in touched),
        unchanged=len(known - touched),
        plan=plan,
        snapshot=snapshot,
        broken_before=base.stalled,
        counts=counts,
    )


def _plan(head: Fleet, snapshot: FleetSnapshot | None, answers: Mapping[str, Answer], now: datetime) -> Plan:
    if snapshot is None:
        return Plan(head.revision, (), stalled=head.stalled)
    places = snapshot.placements(head)
    return decide(head, answers, snapshot.as_roles(), now, placed=places.get, kept=snapshot.kept_content)


class _Comparison:
    def __init__(
        self,
        base: Fleet,
        head: Fleet,
        plan: Plan,
        answers: Mapping[str, Answer],
        snapshot: FleetSnapshot | None,
        now: datetime,
    ) -> None:
        self._base, self._head, self._snapshot, self._now = base, head, snapshot, now
        self._answers = answers
        self._steps = {step.action.target: step for step in plan.steps}
        self._failed = frozenset(snapshot.failed) if snapshot else frozenset()
        self._stalled = {stalled.path: stalled for stalled in head.stalled}
        limits = head.platform.spec.reconcile
        self._too_many = too_many_environments(plan, limits)
        too_many = too_many_nodes(plan, limits, answers.get)
        self._held_nodes = dict.fromkeys(changed_in_use(plan, answers.get), too_many) if too_many else {}
        observed = [answer for answer in answers.values() if isinstance(answer, ObservedNode)]
        self._seen = frozenset(id_ for answer in observed for id_ in answer.environments)

    def items(self) -> Iterator[Item]:
        yield from self._broken()
        yield from self._platform()
        yield from self._nodes()
        for entry in self._head.environments.values():
            if not entry.stalled:
                yield from self._environment(entry)
        yield from self._gone()

    def _broken(self) -> Iterator[Item]:
        for path, stalled in sorted(self._stalled.items()):
            yield Item(Kind.BROKEN, path, "", notes=(str(stalled),))

    def _platform(self) -> Iterator[Item]:
        facts = of_documents(self._base.platform, self._head.platform)
        if facts:
            yield Item(Kind.PLATFORM, "platform", "", facts, outcome="holds once merged")

    def _nodes(self) -> Iterator[Item]:
        for node in self._head.nodes.values():
            before = self._base.nodes.get(node.id)
            if node.stalled or before is node:
                continue
            facts = of_documents(before.manifest, node.manifest) if before else ()
            if before and not facts:
                continue
            step = self._steps.get(node.slug)
            provision = step if step and isinstance(step.action, ProvisionNode) else None
            yield Item(
                Kind.NODE,
                node.slug,
                node.slug,
                facts or (Fact("node", None, f"new, at {node.manifest.spec.address}"),),
                self._outcome(provision) if provision else "nothing is done on it",
                effect_of(provision, is_there=bool(before)) if provision else ON_RECORD_ALONE,
                action=provision.action.verb if provision else None,
            )
        for node in self._base.nodes.values():
            if node.id not in self._head.nodes and node.path not in self._stalled:
                told = "Its document is gone: nothing on it is touched, and nobody looks at it any more."
                yield Item(Kind.NODE, node.slug, node.slug, outcome="left alone", notes=(told,))

    def _environment(self, entry: EnvironmentEntry) -> Iterator[Item]:
        before = self._base.environments.get(entry.id)
        if before is not None and self._is_same(before, entry):
            return
        unreadable = before is None and any(one.path == entry.path for one in self._base.stalled)
        step, is_there = self._steps.get(entry.key), str(entry.id) in self._seen
        found = step if step and isinstance(step.action, Desired) else None
        known = found.action.variables if found and isinstance(found.action, Desired) else None
        if entry.manifest.spec.reconcile.holds:
            # What the node will be told leaves out what is held; the pull request changes that, too.
            known = None
        facts = of_environment((self._base, before) if before else None, (self._head, entry), known)
        if before is not None and not facts:
            return
        effect = effect_of(found, is_there=is_there) if found else ON_RECORD_ALONE
        kind = Kind.CREATED if before is None and not unreadable else Kind.CHANGED
        if effect.destroys:
            kind = Kind.REPLACED
        if self._is_expiring(entry, before):
            kind = Kind.DESTROYED
        yield Item(
            kind,
            entry.key,
            entry.manifest.spec.node,
            facts,
            self._outcome(found) if found else self._why_nothing(entry),
            effect,
            tuple(self._notes(entry, before, found, is_there=is_there, unreadable=unreadable)),
            found.action.verb if found else None,
        )

    def _is_same(self, before: EnvironmentEntry, entry: EnvironmentEntry) -> bool:
        """Whether nothing that this environment follows from is another one; most are the same objects."""
        if before is not entry and before != entry:
            return False
        old_site, new_site = self._base.site_of(before), self._head.site_of(entry)
        old_node, new_node = self._base.node_of(before), self._head.node_of(entry)
        around = (self._base.platform, old_site, old_node), (self._head.platform, new_site, new_node)
        return all(old is new or old == new for old, new in zip(*around, strict=True))

    def _is_expiring(self, entry: EnvironmentEntry, before: EnvironmentEntry | None) -> bool:
        ends = entry.manifest.spec.expires_at
        return ends is not None and before is not None and ends != before.manifest.spec.expires_at

    def held_back(self, step: Step) -> Step:
        """As the loop will see it: ``waiting`` where too much would change at once."""
        held = self._held(step)
        return replace(step, verdict=Verdict.WAITING, reason=held) if held else step

    def _outcome(self, step: Step) -> str:
        return f"waits for a person: {held}" if (held := self._held(step)) else outcome(step)

    def _held(self, step: Step) -> str | None:
        if step.verdict is not Verdict.APPLY:
            return None
        return self._too_many if isinstance(step.action, Desired) else self._held_nodes.get(step.action.node_id)

    def _why_nothing(self, entry: EnvironmentEntry) -> str:
        node = self._head.node_of(entry)
        answer = self._answers.get(entry.manifest.spec.node)
        if self._snapshot is None:
            return "not known: there is no observation"
        if isinstance(answer, Unreachable):
            return f"not known: node {entry.manifest.spec.node} did not answer, so nothing is decided"
        if answer is None:
            return f"not known: node {entry.manifest.spec.node} was never asked"
        if node and node.manifest.spec.state != "active":
            return f"nothing: node {node.slug} is decommissioned"
        return "nothing is done on the node"

    def _notes(
        self,
        entry: EnvironmentEntry,
        before: EnvironmentEntry | None,
        step: Step | None,
        *,
        is_there: bool,
        unreadable: bool,
    ) -> Iterator[str]:
        if step:
            yield from (f"{one.field} is {one.held}. It stays as it is for now." for one in step.changes if one.held)
            yield from courses(step)
            if needs_storage(step, is_there=is_there) and self._head.platform.spec.backups is None:
                yield "platform.yaml declares no storage for backups (spec.backups): this will fail before it begins."
        if unreadable:
            yield "Its document could not be used before."
        if before is None and is_there:
            yield "It is on its node already: it is looked after again, its content stays."
        if step and step.verdict is Verdict.APPLY and (first := self._before_production(entry)):
            yield f"Where one commit changes both, it waits until {', '.join(first)} is applied and healthy."
        if entry.id in self._failed:
            yield "Its last job failed: the loop leaves it alone until `trueup apply` or `trueup reset`."
        if self._is_expiring(entry, before) and (ends := entry.manifest.spec.expires_at):
            when = "within the hour" if ends <= self._now else f"at {ends:%Y-%m-%d %H:%M %Z}"
            yield (
                f"It is REMOVED {when}, with database, uploads and code, after a full backup that is kept "
                "as long as any other. Without storage for backups it stays."
            )
        if before and _versions(before) != _versions(entry):
            yield "spec.versions only records what an update resulted in: no plugin or theme is changed by it."

    def _before_production(self, entry: EnvironmentEntry) -> list[str]:
        """What of the same site changes, too, and comes first."""
        if entry.manifest.spec.type is not EnvironmentType.PRODUCTION:
            return []
        others = self._head.environments_by_site.get(entry.site, ())
        return [
            one.key
            for one in others
            if one.id != entry.id and one.key in self._steps and one.id in self._base.environments
            if one != self._base.environments[one.id]
        ]

    def _gone(self) -> Iterator[Item]:
        for entry in self._base.environments.values():
            if entry.id in self._head.environments or entry.path in self._stalled or entry.stalled:
                continue
            seen = str(entry.id) in self._seen
            where = entry.manifest.spec.node
            notes = (
                f"Files, database and address stay on {where} and go on being served; nobody heals, updates or "
                "backs them up any more."
                if seen or self._snapshot is None
                else f"Nothing of it was seen on {where}.",
                f"To have it backed up and removed, run `trueup remove {entry.key}` instead: it commits the same.",
            )
            facts = of_environment(None, (self._base, entry))
            told = tuple(Fact(one.what, one.after, "not declared") for one in facts if one.what in _VISITED)
            yield Item(Kind.LEFT, entry.key, where, told, "left on its node", Effect("NONE is taken", "none"), notes)


_VISITED = frozenset({"type", "address", "domains"})
"""What is worth knowing of what is left behind."""


def _versions(entry: EnvironmentEntry) -> Versions:
    return entry.manifest.spec.versions
