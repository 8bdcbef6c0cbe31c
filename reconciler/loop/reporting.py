"""Makes a drift report of what the records know now, and says who is to be sent what changed. Asks no node."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from uuid import UUID

from reconciler.core.errors import JobError
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode, JobType
from reconciler.loop.tools import Tools
from reconciler.operations.drills import last_drills
from reconciler.records.drift import DriftCheck
from reconciler.records.jobs import Job, JobFilter, operator_of
from reconciler.records.outcomes import Outcome, Succeeded
from reconciler.records.reports import NewDelivery, StoredReport
from reconciler.reports.causes import Login, RunByHand
from reconciler.reports.comparing import changes
from reconciler.reports.composing import Occasion, compose
from reconciler.reports.findings import Check, Facts
from reconciler.reports.model import Report, ReportHead, ReportTrigger
from reconciler.reports.targets import delivery_key, targets_of
from reconciler.state import CurrentState, Records, answer_of

LOGINS = timedelta(days=30)
"""How long ago a login may be that still explains a difference."""
TRIES = 10


def make_report(job: Job, tools: Tools) -> Outcome:
    """Keep a report under the job's id; one that a repeated job made before stays."""
    records = tools.state.records
    for _ in range(TRIES):
        if records.reports.has(job.id):
            break
        current = tools.state.current()
        report = compose(_occasion(job, tools.clock()), facts_of(current, tools))
        new, superseded = _outgoing(report, current.fleet, records)
        if records.reports.save(stored(report), new, superseded):
            break
    else:
        raise JobError(JobErrorCode.JOB_CONFLICT, "Others sent reports all the while. Ask for the report again.")
    return Succeeded({"report_id": str(job.id)})


def facts_of(current: CurrentState, tools: Tools) -> Facts:
    """What there is to report now."""
    fleet, records = current.fleet, tools.state.records
    observations = {node.slug: current.observations.get(node.id) for node in fleet.nodes.values()}
    answers = {name: answer for name, one in observations.items() if (answer := answer_of(one)) is not None}
    latest = records.reports.latest()

    def committed_at(path: str) -> datetime | None:
        history = current.history(path)
        return history.updated_at if history else None

    return Facts(
        fleet=fleet,
        plan=tools.decide(fleet, answers),
        answers=answers,
        seen={one.node_id: one.observed for one in observations.values() if one and one.observed},
        checks={id_: _check(check) for id_, check in current.drift_checks.items()},
        history=lambda id_: [_check(check) for check in records.drift_checks.history(id_)],
        logins=_logins(records, tools.clock() - LOGINS),
        ssh=records.node_logins.since(tools.clock() - LOGINS),
        committed_at=committed_at,
        runs=_runs(records, tools.clock() - LOGINS),
        previous=Report.model_validate(latest.report) if latest else None,
        located=tools.state.repository.located,
        drills=last_drills(records, tools.clock()),
    )


def stored(report: Report) -> StoredReport:
    """The report as it is kept."""
    return StoredReport(
        id=report.id,
        created_at=report.created_at.astimezone(UTC),
        trigger=report.trigger.value,
        head=report.model_dump(mode="json", include=set(ReportHead.model_fields)),
        report=report.model_dump(mode="json"),
    )


def _occasion(job: Job, now: datetime) -> Occasion:
    intent = job.intent or {}
    if intent.get("scheduled"):
        return Occasion(job.id, now, ReportTrigger.SCHEDULE)
    return Occasion(job.id, now, ReportTrigger.REQUEST, intent.get("actor", {}).get("email"))


def _check(check: DriftCheck) -> Check:
    return Check(check.created_at, check.differences)


def _logins(records: Records, since: datetime) -> dict[UUID, list[Login]]:
    found = records.audit.logins_since(since)
    return {id_: [Login(at, who) for at, who in logins] for id_, logins in found.items()}


def _runs(records: Records, since: datetime) -> dict[UUID, list[RunByHand]]:
    """Playbooks run by hand: under the environment that each was about, else under its nodes."""
    found: dict[UUID, list[RunByHand]] = defaultdict(list)
    for job in records.jobs.page(JobFilter(job_types=frozenset({JobType.OPERATOR_RUN})), limit=1000).jobs:
        who, began = operator_of(job), job.started_at
        if who is None or began is None or began < since:
            continue
        intent = job.intent or {}
        run = RunByHand(str(job.id), who, str(intent.get("playbook")), began, job.finished_at)
        nodes = [UUID(id_) for id_ in intent.get("nodes", ())]
        for id_ in [job.environment_id, *nodes] if job.environment_id else nodes:
            found[id_].append(run)
    return found


def _outgoing(report: Report, fleet: Fleet, records: Records) -> tuple[list[NewDelivery], list[str]]:
    """What to send of the report, and which waiting deliveries it replaces.

    Each target is told what changed since the last that it heard; the first time, it is sent a report in any case.
    """
    declared, heard = targets_of(fleet.platform.spec.reports), records.deliveries.heard()
    known: dict[UUID, Report] = {}
    new: list[NewDelivery] = []
    for id_, target in declared.items():
        last = heard.get(id_)
        if last is not None and last.report_id not in known:
            known[last.report_id] = Report.model_validate(records.reports.get(last.report_id).report)
        told = changes(known[last.report_id] if last else None, report)
        if told or last is None:
            new.append(
                NewDelivery(
                    key=delivery_key(report.id, id_),
                    target=id_,
                    name=target.name,
                    changes=[change.model_dump(mode="json") for change in told],
                    is_first=last is None,
                )
            )
    return new, [waiting.key for waiting in records.deliveries.pending() if waiting.target in declared]
