"""What a report says comes from a playbook that somebody ran by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from reconciler.core.observed import AppliedBy, SshLogin
from reconciler.reports.causes import RunByHand
from reconciler.reports.model import Origin
from tests.core.fake_node import NOW
from tests.reports.fleets import World, of_environment
from tests.reports.test_composing import only

HOUR = timedelta(hours=1)


def test_a_recorded_run_by_hand_names_its_operator_also_of_what_no_manifest_tells() -> None:
    world = World()
    began, ended = NOW - 3 * HOUR, NOW - HOUR / 2
    run = RunByHand("J", "grace", "environment.yml", began, ended)
    environment, node = world.environment().id, world.node().id
    other = {**world.fleet.environment_variables(environment).model_dump(mode="json"), "files": "locked"}
    world.touch(
        applied_variables=other, applied_digest="0", applied_at=NOW - HOUR, applied_by=AppliedBy(operator="root")
    )
    world.runs = {environment: [run]}
    told = "grace ran environment.yml by hand 2026-11-22 09:00 UTC (job J)."
    one = only(of_environment(world.report()).differences)
    assert (one.origin, one.evidence) == (Origin.OPERATOR, told)
    world.runs = {environment: [replace(run, ended=NOW - 2 * HOUR)]}
    assert "root ran a playbook" in str(only(of_environment(world.report()).differences).evidence), "it was another run"

    for of in (environment, node):
        touched = World(runs={of: [run]})
        touched.ssh = {node: [SshLogin(at=NOW - HOUR, user="root", address="192.0.2.7")]}
        touched.touch(applied_at=NOW - 4 * HOUR)
        path = touched.break_file()
        one = next(one for one in of_environment(touched.report()).differences if path in one.field)
        assert (one.origin, one.evidence) == (Origin.OPERATOR, told)

    touched.runs = {node: [replace(run, began=NOW - 6 * HOUR, ended=NOW - 5 * HOUR)]}
    assert only(of_environment(touched.report()).differences).origin is Origin.SSH, "it ended before"
    touched.runs = {touched.node("web-2").id: [run]}
    assert only(of_environment(touched.report()).differences).origin is Origin.SSH, "it was elsewhere"
