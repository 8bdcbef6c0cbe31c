"""A drift report of 1,000 environments that ten simulated nodes answered for; one in ten has drifted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

from reconciler.core.observed import ObservedNode
from reconciler.home import Home, clock, create
from reconciler.loop.reporting import facts_of, make_report, stored
from reconciler.loop.tools import Tools
from reconciler.nodes.connection import Connections
from reconciler.operations.declaring import Actor
from reconciler.records.drift import DriftCheck
from reconciler.reports.composing import Occasion, compose
from reconciler.reports.html import html
from reconciler.reports.markdown import markdown
from reconciler.reports.model import Report, ReportTrigger
from reconciler.settings import Settings
from reconciler.store.documents import render
from reconciler.store.repository import Author, Repository
from tests.bench.measure import Line, seconds
from tests.core import documents as d
from tests.core.fake_node import configured, provisioned

NODES, EACH = 10, 100
REPEAT = 5
AUTHOR = Author("Bench", "bench@example.com")


def run(say: Callable[[str], None]) -> Iterator[Line]:
    with tempfile.TemporaryDirectory(prefix="tb-") as directory:
        settings = Settings(home=Path(directory) / "h")
        settings.home.mkdir()
        say(f"Simulating {NODES * EACH} environments on {NODES} nodes")
        Repository.init(settings.store, _documents(), AUTHOR).close()
        create(settings, AUTHOR)
        with Home.open(settings) as home:
            tools = Tools(settings, home.state, Connections(), clock)
            try:
                _observe(tools)
                say("Making reports of them")
                yield from _measured(home, tools)
            finally:
                tools.close()


def _measured(home: Home, tools: Tools) -> Iterator[Line]:
    count = f"{NODES * EACH} environments"
    plan = seconds(lambda: tools.decide(home.state.fleet(), tools.remembered(home.state.fleet())), REPEAT)
    report = _composed(home, tools)
    assert report.counts.drifted == NODES * EACH // 10, report.headline
    first = seconds(lambda: _composed(home, tools), REPEAT)
    yield Line(
        f"drift report of {count}, composed", first, "s", "≤ 2 s", plan, "reading the answers and planning alone"
    )
    made = seconds(lambda: _made(home, tools), REPEAT)
    yield Line(
        "the same as a job, kept, told since when", made, "s", "≤ 3 s", plan, "reading the answers and planning alone"
    )
    plain = seconds(lambda: json.dumps(stored(report).report), REPEAT)
    for name, shape in (("HTML", html), ("Markdown", markdown)):
        yield Line(f"the same as {name}", seconds(lambda shape=shape: shape(report), REPEAT), "s", "", plain, "as JSON")


def _composed(home: Home, tools: Tools) -> Report:
    return compose(Occasion(uuid4(), clock(), ReportTrigger.SCHEDULE), facts_of(home.state.current(), tools))


def _made(home: Home, tools: Tools) -> None:
    id_: UUID = home.operations.drift_report(Actor("Bench", "bench@example.com"))
    make_report(home.records.jobs.get(id_), tools)


def _documents() -> dict[str, bytes]:
    found = {f"nodes/web-{number}.yaml": render(d.node(f"10.0.0.{number + 1}")) for number in range(NODES)}
    for number in range(NODES * EACH):
        found[f"sites/shop-{number}/site.yaml"] = render(d.site(f"Shop {number}"))
        found[f"sites/shop-{number}/environments/production.yaml"] = render(d.environment(f"web-{number % NODES}"))
    return found


def _observe(tools: Tools) -> None:
    """Every node answers, every environment was checked; in one of ten a server block and a file of core differ."""
    fleet, now = tools.state.fleet(), clock()
    assert len(fleet.environments) == NODES * EACH, fleet.stalled[:3]
    for node in fleet.nodes.values():
        there = {}
        for number, environment in enumerate(fleet.environments_by_node[node.slug]):
            variables = fleet.environment_variables(environment.id)
            drifted = number % 10 == 0
            seen = configured(variables, role_digest=tools.roles.environment)
            if drifted:
                seen = seen.model_copy(update={"files": dict.fromkeys(seen.files, "f" * 64)})
            there[variables.id] = seen
            _check(tools, environment.id, drifted)
        base = provisioned(fleet.node_variables(node.id), role_digest=tools.roles.node)
        answer: ObservedNode = base.model_copy(update={"environments": there, "observed_at": now})
        tools.state.records.observations.save(node.id, answer, now)


def _check(tools: Tools, environment_id: UUID, drifted: bool) -> None:
    found = {"field": "core index.php", "desired": "as released", "observed": "modified", "heals": False}
    differences = ({**found, "cause": "changed on the node"},) if drifted else ()
    check = DriftCheck(
        id=uuid4(),
        environment_id=environment_id,
        status="drifted" if drifted else "clean",
        differences=differences,
        created_at=clock() - timedelta(hours=1),
    )
    tools.state.records.drift_checks.save(check)
