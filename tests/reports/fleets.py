"""Fleets as data, with what their nodes answered, to make reports of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.fleet import Fleet
from reconciler.core.observed import ObservedNode, SshLogin
from reconciler.core.plan import Answer, decide
from reconciler.reports.causes import Login, RunByHand
from reconciler.reports.composing import Occasion, compose
from reconciler.reports.findings import Check, Facts
from reconciler.reports.model import EnvironmentDrift, NodeDrift, Report, ReportTrigger
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, configured, provisioned

COMMITTED = NOW - timedelta(days=2)
ID = UUID("11111111-1111-4111-8111-111111111111")
FILE = "/etc/nginx/conf.d/trueup-http.conf"


def documents() -> dict[str, Any]:
    """Two nodes; two sites on the first, one on the second."""
    found: dict[str, Any] = {"nodes/web-1.yaml": d.node(), "nodes/web-2.yaml": d.node("10.0.0.2")}
    for site, node in (("acme", "web-1"), ("globex", "web-1"), ("initech", "web-2")):
        found[f"sites/{site}/site.yaml"] = d.site(f"The {site}")
        found[f"sites/{site}/environments/production.yaml"] = d.environment(node)
    return found


def answers_of(fleet: Fleet) -> dict[str, Answer]:
    """What nodes answer on which everything is as declared."""
    found: dict[str, Answer] = {}
    for node in fleet.nodes.values():
        placed = [fleet.environment_variables(one.id) for one in fleet.environments_by_node.get(node.slug, ())]
        there = {variables.id: configured(variables) for variables in placed}
        base = provisioned(fleet.node_variables(node.id))
        applied = base.applied and base.applied.model_copy(update={"applied_at": NOW - timedelta(days=1)})
        found[node.slug] = base.model_copy(update={"environments": there, "applied": applied})
    return found


@dataclass
class World:
    """Desired, observed and remembered at one moment."""

    fleet: Fleet = field(default_factory=lambda: d.fleet_of(documents()))
    answers: dict[str, Answer] = field(default_factory=dict)
    seen: dict[UUID, ObservedNode] = field(default_factory=dict)
    history: dict[UUID, list[Check]] = field(default_factory=dict)
    """Newest first."""
    logins: dict[UUID, Sequence[Login]] = field(default_factory=dict)
    ssh: dict[UUID, Sequence[SshLogin]] = field(default_factory=dict)
    runs: dict[UUID, Sequence[RunByHand]] = field(default_factory=dict)
    committed: dict[str, datetime] = field(default_factory=dict)
    previous: Report | None = None
    now: datetime = NOW
    trigger: ReportTrigger = ReportTrigger.SCHEDULE
    requested_by: str | None = None

    def __post_init__(self) -> None:
        self.answers = self.answers or answers_of(self.fleet)
        if not self.history:
            self.history = {id_: [Check(NOW - timedelta(hours=1), ())] for id_ in self.fleet.environments}

    def environment(self, key: str = "acme/production") -> EnvironmentEntry:
        return self.fleet.environments_by_key[key]

    def node(self, name: str = "web-1") -> NodeEntry:
        return self.fleet.nodes_by_slug[name]

    def touch(self, key: str = "acme/production", **changed: Any) -> None:
        """Change what the node answers of one environment; ``applied_…``: in its manifest."""
        environment = self.environment(key)
        node = self.answer(environment.manifest.spec.node)
        there = node.environments[str(environment.id)]
        manifest = {name.removeprefix("applied_"): value for name, value in changed.items() if name[:8] == "applied_"}
        if manifest and there.applied:
            there = there.model_copy(update={"applied": there.applied.model_copy(update=_renamed(manifest))})
        there = there.model_copy(update={name: value for name, value in changed.items() if name[:8] != "applied_"})
        self.answers[environment.manifest.spec.node] = node.model_copy(
            update={"environments": {**node.environments, str(environment.id): there}}
        )

    def answer(self, name: str) -> ObservedNode:
        answer = self.answers[name]
        assert isinstance(answer, ObservedNode)
        return answer

    def touch_node(self, name: str = "web-1", **changed: Any) -> None:
        self.answers[name] = self.answer(name).model_copy(update=changed)

    def break_file(self, key: str = "acme/production") -> str:
        """Somebody edits a managed file; its path."""
        environment = self.environment(key)
        there = self.answer(environment.manifest.spec.node).environments[str(environment.id)]
        path = next(iter(there.files))
        self.touch(key, files={path: "f" * 64})
        return path

    @property
    def facts(self) -> Facts:
        last = {
            self.fleet.nodes_by_slug[name].id: answer
            for name, answer in self.answers.items()
            if isinstance(answer, ObservedNode)
        }
        return Facts(
            fleet=self.fleet,
            plan=decide(self.fleet, self.answers, ROLES, self.now),
            answers=self.answers,
            seen={**self.seen, **last},
            checks={id_: checks[0] for id_, checks in self.history.items() if checks},
            history=lambda id_: self.history.get(id_, []),
            logins=self.logins,
            ssh=self.ssh,
            runs=self.runs,
            committed_at=lambda path: self.committed.get(path, COMMITTED),
            previous=self.previous,
        )

    def report(self, id_: UUID = ID) -> Report:
        return compose(Occasion(id_, self.now, self.trigger, self.requested_by), self.facts)

    def later(self, **passed: float) -> World:
        """The same world some time later, every node asked again; what it tells now is the previous report."""
        by = timedelta(**passed)
        answers = {
            name: answer.model_copy(update={"observed_at": answer.observed_at + by})
            if isinstance(answer, ObservedNode)
            else answer
            for name, answer in self.answers.items()
        }
        return replace(self, answers=answers, now=self.now + by, previous=self.report())


def _renamed(manifest: dict[str, Any]) -> dict[str, Any]:
    """``at`` and ``by`` are the manifest's ``applied_at`` and ``applied_by``."""
    return {f"applied_{name}" if name in {"at", "by"} else name: value for name, value in manifest.items()}


def of_environment(report: Report, key: str = "acme/production") -> EnvironmentDrift:
    return next(one for one in report.environments if one.environment == key)


def of_node(report: Report, name: str = "web-1") -> NodeDrift:
    return next(one for one in report.nodes if one.node == name)
