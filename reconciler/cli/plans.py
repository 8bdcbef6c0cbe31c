"""``plan``, ``apply``, ``drift``, ``status``: what should be, what is, and what would be done."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer

from reconciler.cli import domains, nodes, preview, reports, sites, upstream
from reconciler.cli.context import actor, environment_named, node_named, opened, tools_of
from reconciler.cli.jobs import finish
from reconciler.cli.output import Format, Output, ask, data, say, say_lines, show
from reconciler.cli.reviews import PlanFormat, Targets
from reconciler.core import views
from reconciler.core.actions import ReturnContent
from reconciler.core.changes import Held
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Invalid, NotFound
from reconciler.core.fleet import Fleet
from reconciler.core.holds import said
from reconciler.core.observed import listed_hosts, reach, stopped
from reconciler.core.plan import ON_REQUEST, Plan, Step, plan_data
from reconciler.core.policy import effective_mode, in_force
from reconciler.core.status import DriftStatus
from reconciler.home import Home, clock
from reconciler.operations.drills import failed_drills
from reconciler.records.drift import DriftCheck
from reconciler.state import CurrentState


def register(app: typer.Typer) -> None:
    for command in (apply, drift, status):
        app.command()(command)


def show_plan(targets: list[str] | None, output: PlanFormat, *, observe: bool, detailed_exitcode: bool) -> None:
    """Print what differs between desired and observed, and end with the exit code that says it."""
    with opened() as home:
        found = _plan(home, targets, observe=observe)
        unhealthy = _unhealthy(home, targets)
    match output:
        case PlanFormat.JSON:
            data({**plan_data(found), "unhealthy": unhealthy}, Format.JSON)
        case PlanFormat.MARKDOWN:
            say_lines(views.markdown(found))
        case PlanFormat.TEXT:
            say_lines(views.text(found))
    for one in unhealthy if output is not PlanFormat.JSON else ():
        say(f"{'- ' * (output is PlanFormat.MARKDOWN)}unhealthy {one['environment']}: {one['reason']}")
    if detailed_exitcode and (found.silent or found.stalled):
        raise typer.Exit(1)
    if detailed_exitcode and not found.is_empty:
        raise typer.Exit(2)


def _plan(home: Home, targets: list[str] | None, *, observe: bool, confirm: bool = False) -> Plan:
    fleet = home.state.fleet()
    wanted = frozenset(targets or ())
    _refuse_unknown(fleet, wanted)
    with tools_of(home) as tools:
        active = [n for n in fleet.nodes.values() if not n.stalled and n.manifest.spec.state == "active"]
        observed = tools.observe(active) if observe else tools.remembered(fleet)
        found = tools.decide(fleet, observed, confirmed=lambda _environment_id, _content_id: confirm)
    return found.only(wanted) if wanted else found


def _unhealthy(home: Home, targets: list[str] | None) -> list[dict[str, Any]]:
    """Environments whose release was not healthy when it was last asked. No plan mends that by itself."""
    current = home.state.current()
    found = [(one, current.health(one.id)) for one in _environments(current.fleet, targets)]
    return [
        {"environment": one.key, "reason": health.found.reason, "since": health.since.isoformat(timespec="seconds")}
        for one, health in found
        if health and health.health == "unhealthy"
    ]


def _refuse_unknown(fleet: Fleet, targets: frozenset[str]) -> None:
    known = fleet.nodes_by_slug.keys() | fleet.sites_by_slug.keys() | fleet.environments_by_key.keys()
    if unknown := sorted(targets - known):
        raise NotFound(f"Nothing is named {', '.join(unknown)}. `trueup status` shows what there is.")


def apply(
    targets: Targets = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    require: Annotated[
        str | None, typer.Option(help="Only if the plan has this digest: the one that was reviewed (`plan -o json`).")
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Let the named environments lose what was written since a backup.")
    ] = False,
) -> None:
    """Plan, ask, and make it so; also what brings a failed environment back."""
    if confirm and not targets:
        raise Invalid("--confirm holds for what is named alone. Name the environments that may go back.")
    with opened() as home:
        found = _plan(home, targets, observe=True, confirm=confirm)
        say_lines(views.text(found))
        if require is not None and found.digest() != require:
            raise Invalid(f"The plan's digest is {found.digest()}, not the one that was reviewed. Review it again.")
        todo = [step for step in found.steps if step.verdict in ON_REQUEST]
        keys = {step.action.target for step in todo} | _failed(home, targets)
        confirmed = {one.target: UUID(one.variables.content.id) for one in _returns(todo)}
        if not keys:
            return
        if not yes:
            ask(f"Apply to {', '.join(sorted(keys))}?")
        fleet = home.state.fleet()
        for key in sorted(keys, key=lambda key: ("/" in key, key)):
            if "/" in key:
                target = environment_named(fleet, key).id
                job_id = home.operations.apply(target, actor(), confirmed=confirmed.get(key))
            else:
                job_id = home.operations.provision(node_named(fleet, key).id, actor())
            finish(home, job_id, wait=True)


def _returns(steps: list[Step]) -> list[ReturnContent]:
    return [step.action for step in steps if isinstance(step.action, ReturnContent)]


def _failed(home: Home, targets: list[str] | None) -> set[str]:
    """Failed environments that were named: applying them is how they come back."""
    current = home.state.current()
    return {
        environment.key
        for environment in current.fleet.environments.values()
        if current.status_of(environment.id) == "failed" and {environment.key, environment.site} & set(targets or ())
    }


def drift(
    targets: Targets = None,
    check: Annotated[bool, typer.Option(help="Check now, files included; otherwise the last checks.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 0: all clean, 1: something was never checked, 2: drifted.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """What the last drift check of each environment found; `trueup drift report` tells of the whole fleet."""
    with opened() as home:
        environments = _environments(home.state.fleet(), targets)
        if check:
            for environment in environments:
                finish(home, home.operations.drift_check(environment.id, actor()), wait=True)
        checks = home.records.drift_checks.latest_all()
        current = home.state.current()
        rows = [{**_drift_row(one, checks.get(one.id)), "health": _health(current, one.id)} for one in environments]
    show(rows, ("environment", "drift", "health", "checked_at", "found"), output)
    for row in rows if output is Format.TABLE and targets else ():
        for change in row["differences"]:
            if "compared_with" in change:
                say(f"{row['environment']}  content {change['cause']}: {change['counts'] or 'nothing'}")
                continue
            if "content" in change:
                say(f"{row['environment']}  {change['field']}: {change['cause']}, {change['content']}")
                continue
            say(
                f"{row['environment']}  {change['field']}: desired {change['desired']}, "
                f"observed {change['observed']} [{change['cause']}{_held(change)}]"
            )
    found = {row["drift"] for row in rows}
    if exit_code and found - {DriftStatus.CLEAN}:
        raise typer.Exit(2 if DriftStatus.DRIFTED in found else 1)


def _held(change: dict[str, Any]) -> str:
    return f"; {Held(**change['held'])}" if change.get("held") else ""


def _holds(fleet: Fleet) -> list[dict[str, Any]]:
    """Every hold in force: on what, by whom, until when and why."""
    documents = [
        *((node.slug, node.manifest.spec.reconcile.holds) for node in fleet.nodes.values()),
        *((one.key, one.manifest.spec.reconcile.holds) for one in fleet.environments.values()),
    ]
    return [
        {"target": target, **asdict(said(hold))}
        for target, holds in sorted(documents, key=lambda document: document[0])
        for hold in in_force(holds, clock())
    ]


def _health(current: CurrentState, environment_id: UUID) -> str:
    known = current.health(environment_id)
    return known.health if known else "unknown"


def _drift_row(environment: EnvironmentEntry, check: DriftCheck | None) -> dict[str, Any]:
    return {
        "environment": environment.key,
        "drift": check.status if check else "unknown",
        "checked_at": check.created_at.isoformat(timespec="seconds") if check else None,
        "found": len(check.differences) if check else None,
        "differences": list(check.differences) if check else [],
    }


def _environments(fleet: Fleet, targets: list[str] | None) -> list[EnvironmentEntry]:
    wanted = frozenset(targets or ())
    _refuse_unknown(fleet, wanted)
    return [
        environment
        for environment in sorted(fleet.environments.values(), key=lambda environment: environment.key)
        if not wanted or wanted & {environment.key, environment.site, environment.manifest.spec.node}
    ]


def _unfound(hosts: list[dict[str, Any]]) -> list[str]:
    """What is told of listed hosts that a closed copy does not reach, or reaches where they were before."""
    return [
        f"host {row['host']} of {row['environment']}: {row['error']}"
        + (f" Let through to {', '.join(row['addresses'])}, as before." if row["addresses"] else "")
        for row in hosts
        if row["error"]
    ]


def status(output: Output = Format.TABLE) -> None:
    """Everything at a glance: revision, nodes, environments, stalled documents, open jobs."""
    with opened() as home:
        current = home.state.current()
        counts = home.records.jobs.counts()
        environments = [
            {
                "environment": environment.key,
                "status": current.status_of(environment.id).value,
                "drift": current.drift(environment.id).status.value,
                "health": _health(current, environment.id),
                "egress": reach(current.seen(environment.id)),
                "stopped": ", ".join(f"{n} {kind}" for kind, n in stopped(current.seen(environment.id)).items()),
                "mode": effective_mode(environment.manifest.spec.reconcile, clock()).value,
                "node": environment.manifest.spec.node,
                "url": current.fleet.preview_url(environment),
            }
            for environment in _environments(current.fleet, None)
        ]
        certificates = [row for one in _environments(current.fleet, None) for row in domains.troubled(home, one)]
        drills = failed_drills(home.state, clock())
        hosts = [
            {"environment": one.key, "host": name, "addresses": list(host.addresses), "error": host.error}
            for one in _environments(current.fleet, None)
            if isinstance(one.manifest.spec.egress, tuple)
            for name, host in listed_hosts(current.seen(one.id)).items()
        ]
        report: dict[str, Any] = {
            "revision": current.fleet.revision,
            "jobs": {status.value: count for status, count in counts.items()},
            "nodes": nodes.rows(home),
            "sites": sites.rows(home),
            "environments": environments,
            "holds": _holds(current.fleet),
            "certificates": certificates,
            "drills": drills,
            "hosts": hosts,
            "preview_certificate": preview.row(home),
            "stalled": [stalled.data() for stalled in current.fleet.stalled],
            "upstream": upstream.report(home),
            "reports": reports.targets(home),
        }
        told = upstream.lines(home)
    if output is not Format.TABLE:
        data(report, output)
        return
    say(f"Store at {current.fleet.revision[:12]}. Jobs: {counts_text(report['jobs'])}.")
    say()
    show(report["nodes"], ("name", "address", "status", "environments", "observed_at", "hold"), output)
    say()
    show(environments, ("environment", "status", "drift", "health", "egress", "stopped", "mode", "node", "url"), output)
    for node in report["nodes"]:
        for about, reason in node["unusable"].items():
            say(f"silent {node['name']}: Of {about}: {reason}")
    for hold in report["holds"]:
        say(f"{hold.pop('target')} {hold['field']} is {Held(**hold)}")
    for row in certificates:
        say(f"certificate of {row['hostname']} ({row['environment']}): {row['trouble']}")
    for row in drills:
        what = f" ({row['backup']})" if row["backup"] else ""
        say(f"drill of {row['environment']}{what} failed at {row['drilled_at']}: {row['error']}")
    for line in _unfound(hosts):
        say(line)
    for line in preview.lines(report["preview_certificate"]):
        say(line)
    for target in report["reports"]:
        if target["error"]:
            say(f"report to {target['target']} {target['status']}: {target['error']}")
    for stalled in current.fleet.stalled:
        say(f"stalled {stalled}")
    for line in told:
        say(line)


def counts_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none"
