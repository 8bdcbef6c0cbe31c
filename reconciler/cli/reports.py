"""``trueup drift report``: all that is known of the fleet's drift, in one."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from threading import Event
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer

from reconciler.cli.context import actor, opened, tools_of, wait_for
from reconciler.cli.output import fail, say, say_lines
from reconciler.core.jobs import JobStatus
from reconciler.core.visible import visible_json
from reconciler.home import Home, clock
from reconciler.records.deliveries import Delivery
from reconciler.reports.composing import Occasion, compose
from reconciler.reports.html import html
from reconciler.reports.markdown import markdown
from reconciler.reports.model import Report, ReportTrigger
from reconciler.reports.targets import targets_of
from reconciler.reports.text import text


class ReportFormat(StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"
    HTML = "html"


_RENDER: dict[ReportFormat, Callable[[Report], str]] = {
    ReportFormat.TEXT: text,
    ReportFormat.MARKDOWN: markdown,
    ReportFormat.JSON: lambda report: f"{visible_json(report.model_dump_json(indent=2))}\n",
    ReportFormat.HTML: html,
}
_PATIENCE_S = 120.0


def register(app: typer.Typer) -> None:
    app.command("drift report")(report)


def report(
    shape: Annotated[ReportFormat, typer.Option("--format", help="Shape of the report.")] = ReportFormat.TEXT,
    send: Annotated[
        bool, typer.Option("--send", help="Keep it, and send it to the declared targets if anything changed.")
    ] = False,
) -> None:
    """All that differs in the whole fleet: since when, why, and what a reconcile would do. No node is asked."""
    with opened() as home:
        found = _sent(home) if send else _composed(home)
    say_lines(_RENDER[shape](found))


def targets(home: Home) -> list[dict[str, Any]]:
    """Each declared target with what became of the newest report for it."""
    latest = home.records.deliveries.latest()
    declared = targets_of(home.state.fleet().platform.spec.reports)
    return [{"target": target.name, **_row(latest.get(id_))} for id_, target in declared.items()]


def _row(delivery: Delivery | None) -> dict[str, Any]:
    if delivery is None:
        return {"status": None, "report": None, "attempts": 0, "error": None, "at": None}
    return {
        "status": delivery.status,
        "report": str(delivery.report_id),
        "attempts": delivery.attempts,
        "error": delivery.error,
        "at": (delivery.ended_at or delivery.created_at).isoformat(timespec="seconds"),
    }


def _composed(home: Home) -> Report:
    """A report that is shown here and kept nowhere."""
    from reconciler.loop.reporting import facts_of

    with tools_of(home) as tools:
        occasion = Occasion(uuid4(), clock(), ReportTrigger.REQUEST, actor().email)
        return compose(occasion, facts_of(home.state.current(), tools))


def _sent(home: Home) -> Report:
    """A report as the API makes it. Where no process serves this home, it is sent from right here."""
    from reconciler.loop.delivering import deliver

    job = wait_for(home, home.operations.drift_report(actor()))
    if job.status is not JobStatus.SUCCEEDED:
        fail(f"Job {job.id} {job.status}: {job.error_code}: {job.error_message}")
    if not home.dispatcher.is_heard():
        with tools_of(home) as tools:
            deliver(tools, Event())
    deliveries = _tried(home, job.id)
    for delivery in deliveries:
        say(f"{delivery.name}: {delivery.status}{f': {delivery.error}' if delivery.error else ''}", err=True)
    if not deliveries:
        say("Nobody is sent it: nothing changed since the last, or no target is declared.", err=True)
    return Report.model_validate(home.records.reports.get(job.id).report)


def _tried(home: Home, report_id: UUID) -> list[Delivery]:
    """The report's deliveries once each was tried, or the patience is over."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        found = home.records.deliveries.of(report_id)
        if all(one.status != "sending" and (one.attempts or one.status != "pending") for one in found):
            return found
        if time.monotonic() > deadline:
            return found
        time.sleep(0.1)
