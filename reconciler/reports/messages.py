"""What is sent of a report: the body of a webhook with its signature, and a mail."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime

from reconciler.reports import wording
from reconciler.reports.html import html
from reconciler.reports.markdown import markdown
from reconciler.reports.model import Report, ReportHead
from reconciler.reports.text import text

NAMED = 10
"""Changes that the summary names; the rest is counted."""
SIGNATURE = "X-Trueup-Signature-256"
DELIVERY = "X-Trueup-Delivery"
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True)
class Message:
    """A report for one target. ``key`` is the same for each attempt, so that a receiver can tell a repetition."""

    key: str
    report: Report
    news: wording.News


def webhook_body(message: Message) -> bytes:
    """JSON that chat services understand by its ``text``, and programs by the rest."""
    report = message.report
    body = {
        "text": summary(message).translate(_SLACK),
        "event": "drift-report",
        "delivery": message.key,
        "trigger": report.trigger.value,
        "requested_by": report.requested_by,
        "changes": [change.model_dump(mode="json") for change in message.news.changes],
        "markdown": markdown(report, message.news),
        "report": report.model_dump(mode="json", include=set(ReportHead.model_fields)),
    }
    return json.dumps(body, ensure_ascii=False).encode()


def signature(body: bytes, key: str) -> str:
    """The value of the header ``SIGNATURE``: HMAC-SHA256 of the body."""
    return f"sha256={hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}"


def summary(message: Message) -> str:
    """A few lines of plain text: the report in one, what set it off, what changed."""
    lines = list(message.news)
    left = len(lines) - NAMED
    more = [f"… and {left} more"] if left > 0 else []
    report = message.report
    return "\n".join([f"Drift report: {report.headline}", wording.occasion(report), *lines[:NAMED], *more])


def mail(message: Message, sender: str, recipient: str) -> EmailMessage:
    """Text and HTML, to one recipient."""
    report = message.report
    found = EmailMessage()
    found["Subject"] = f"Drift report: {report.headline}"
    found["From"] = sender
    found["To"] = recipient
    found["Date"] = format_datetime(report.created_at)
    found["Message-ID"] = f"<{message.key}@{sender.rpartition('@')[2]}>"
    found["Auto-Submitted"] = "auto-generated"
    found[DELIVERY] = message.key
    found.set_content(text(report, message.news), cte="quoted-printable")
    found.add_alternative(html(report, message.news), subtype="html", cte="quoted-printable")
    return found
