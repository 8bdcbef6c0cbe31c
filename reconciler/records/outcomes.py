"""How a run ended, and what follows for the job. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from reconciler.core.jobs import RETRIED, RETRY_DELAYS
from reconciler.core.visible import visible_lines

MESSAGE_LIMIT = 10 * 1024
"""Longest error message, in characters; of a longer one the beginning and the end are kept."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """``error_code`` is from the registry of job errors; the message is for a person and free of secrets."""

    error_code: str
    message: str
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run was ended because somebody cancelled the job."""


Outcome = Succeeded | Failed | Stopped


def next_attempt(
    error_code: str,
    attempt: int,
    max_attempts: int,
    now: datetime,
    delays: Sequence[timedelta] = RETRY_DELAYS,
) -> datetime | None:
    """When to try again after attempt number ``attempt`` (from 1) failed; None: never."""
    if error_code not in RETRIED or attempt >= max_attempts:
        return None
    return now + delays[min(attempt, len(delays)) - 1]


def shortened(message: str) -> str:
    """``message`` within the limit: its first line says what happened, its end what was printed last.

    Nodes have said much of it. No terminal obeys it, and PostgreSQL takes it, which takes no NUL.
    """
    message = visible_lines(message)
    if len(message) <= MESSAGE_LIMIT:
        return message
    gap = "\n…\n"
    head = message[:1024]
    return head + gap + message[-(MESSAGE_LIMIT - len(head) - len(gap)) :]
