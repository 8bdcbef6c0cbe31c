"""Sends what the outbox of reports holds: each row is claimed, tried once, and settled. Any process may do it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from pydantic import ValidationError

from reconciler.core.errors import Invalid, TrueupError
from reconciler.core.jobs import JobType
from reconciler.core.receivers import WebhookTarget
from reconciler.identity import identity, is_dead
from reconciler.loop.sending import Arrived, NotArrived, Result, Uncertain, post, send_mail
from reconciler.loop.tools import Tools
from reconciler.records.deliveries import Delivery
from reconciler.records.jobs import OPEN, JobFilter, NewJob
from reconciler.records.outcomes import Outcome, Succeeded
from reconciler.reports.messages import DELIVERY, SIGNATURE, Message, mail, signature, webhook_body
from reconciler.reports.model import Report, Told, printable
from reconciler.reports.targets import Mailbox, Target, Webhook, targets_of
from reconciler.reports.wording import News
from reconciler.state import Records
from reconciler.storage.secret_store import Secrets

log = structlog.get_logger()

CLAIM = timedelta(minutes=10)
"""Much longer than an attempt may take."""
ATTEMPTS = 8
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(hours=1)
_KEY = "report-delivery"


def work_there_is(records: Records, now: datetime, new_id: Callable[[], UUID]) -> bool:
    """Insert a job that sends what is due, unless one is open; whether there is a new one."""
    for name in records.deliveries.expire(now, is_dead):
        log.warning("a report may have arrived or not", target=name)
    if not records.deliveries.due(now):
        return False
    if records.jobs.page(JobFilter(dedupe_key=_KEY, statuses=frozenset(OPEN)), limit=1).jobs:
        return False
    job = NewJob(id=new_id(), job_type=JobType.REPORT_DELIVERY, dedupe_key=_KEY, ephemeral=True, max_attempts=1)
    records.jobs.enqueue(job, now)
    return True


def deliver(tools: Tools, cancel: threading.Event) -> Outcome:
    """Try all that is due, once."""
    records = tools.state.records
    targets = targets_of(tools.state.fleet().platform.spec.reports)
    holder = identity("courier")
    for delivery in records.deliveries.due(tools.clock()):
        if cancel.is_set():
            break
        if records.deliveries.claim(delivery.key, holder, tools.clock(), CLAIM):
            result = _tried(delivery, targets.get(delivery.target), tools)
            _settle(delivery, result, holder, tools)
    return Succeeded()


def _tried(delivery: Delivery, target: Target | None, tools: Tools) -> Result:
    if target is None:
        return NotArrived("The platform document names it no longer.")
    secrets = Secrets(tools.settings.secrets)
    try:
        message = _message(delivery, tools.state.records)
        if isinstance(target, Mailbox):
            return _send_mail(message, target, secrets)
        return _post(message, target, secrets)
    except TrueupError as error:
        return NotArrived(error.message)


def _message(delivery: Delivery, records: Records) -> Message:
    report = Report.model_validate(records.reports.get(delivery.report_id).report)
    told = tuple(Told.model_validate(change) for change in delivery.changes)
    return Message(delivery.key, report, News(told, delivery.is_first))


def _post(message: Message, target: Webhook, secrets: Secrets) -> Result:
    declared = target.declared
    secret = secrets.get(declared.secret) if declared.secret else {}
    body = webhook_body(message)
    headers = {"User-Agent": "Trueup", DELIVERY: message.key}
    if key := secret.get("key"):
        headers[SIGNATURE] = signature(body, key)
    elif declared.url and declared.secret:
        raise Invalid(f"Secret {declared.secret} has no `key` to sign with. Set it: `trueup secret set`.")
    return post(declared.url or _secret_url(secret, declared), body, headers)


def _secret_url(secret: dict[str, str], declared: WebhookTarget) -> str:
    try:
        url = WebhookTarget(type="webhook", url=secret.get("url")).url
    except ValidationError as error:
        raise Invalid(f"Secret {declared.secret} has no `url` that can be posted to. Set it anew.") from error
    return url or ""


def _send_mail(message: Message, target: Mailbox, secrets: Secrets) -> Result:
    smtp = target.smtp
    credentials = secrets.get(smtp.credentials) if smtp.credentials else None
    if credentials is not None and not {"username", "password"} <= credentials.keys():
        raise Invalid(f"Secret {smtp.credentials} has no `username` and `password`. Set it: `trueup secret set`.")
    return send_mail(mail(message, smtp.sender, target.address), target.address, smtp, credentials)


def _settle(delivery: Delivery, result: Result, holder: str, tools: Tools) -> None:
    outbox, now = tools.state.records.deliveries, tools.clock()
    match result:
        case Arrived():
            kept = outbox.end(delivery.key, holder, "sent", now, None)
            log.info("report sent", target=delivery.name, report=str(delivery.report_id))
        case Uncertain(reason):
            error = printable(f"{reason} It may have arrived, so it is not sent again.")
            kept = outbox.end(delivery.key, holder, "uncertain", now, error)
            log.warning("a report may have arrived or not", target=delivery.name, reason=error)
        case NotArrived(reason):
            kept = _again(delivery, printable(reason), holder, tools)
    if not kept:
        log.warning("an attempt took longer than its claim", target=delivery.name)


def _again(delivery: Delivery, error: str, holder: str, tools: Tools) -> bool:
    outbox, now, attempt = tools.state.records.deliveries, tools.clock(), delivery.attempts + 1
    if attempt >= ATTEMPTS:
        log.error("report not sent", target=delivery.name, reason=error, attempts=attempt)
        return outbox.end(delivery.key, holder, "failed", now, error)
    log.warning("report not sent yet", target=delivery.name, reason=error, attempt=attempt)
    return outbox.again(delivery.key, holder, now + waiting(attempt), error)


def waiting(attempt: int) -> timedelta:
    """How long after that attempt the next one follows."""
    return min(FIRST_WAIT * (1 << (attempt - 1)), LONGEST_WAIT)
