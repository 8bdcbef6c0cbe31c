"""``spec.reconcile``: what the loop may do about a difference, when, and which single fields it leaves alone.

What a person asks for waits for no window, and what runs when one closes is finished.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from reconciler.core.cron import last_due
from reconciler.core.fields import Cron, DisplayName, Strict, Timezone
from reconciler.core.options import OPTION_PATTERN


class ReconcileMode(StrEnum):
    """What the loop does about a difference: heal it, tell it, or leave it alone."""

    ENFORCE = "enforce"
    REPORT = "report"
    PAUSED = "paused"


class Window(Strict):
    """When the loop may apply (``allow``), or may not (``deny``, which wins)."""

    kind: Literal["allow", "deny"]
    cron: Cron = Field(description="When it opens: minute, hour, day of the month, month, day of the week.")
    minutes: int = Field(ge=1, le=366 * 24 * 60, description="How long it stays open.")
    timezone: Timezone = "UTC"


PHP = ("max_children", "max_execution_s", "memory_limit_mb", "upload_max_mb")
ENVIRONMENT_FIELDS = (
    *("cache", "cache.fastcgi", "cache.redis", "content", "domains", "files", "options", "options.<name>", "php"),
    *(f"php.{name}" for name in PHP),
    "release",
)
"""Of an environment's document, what can be held: what its node can be told apart from all else."""
NODE_FIELDS = ("redis", "redis.memory_percent")


def _field_of_environment(field: str) -> str:
    is_option = re.fullmatch(rf"options\.{OPTION_PATTERN}", field)
    return field if is_option else _known(field, ENVIRONMENT_FIELDS, "an environment")


def _field_of_node(field: str) -> str:
    return _known(field, NODE_FIELDS, "a node")


def _known(field: str, known: Sequence[str], what: str) -> str:
    if field not in known or "<" in field:
        raise ValueError(f"{field} is no field of {what} that can be held. Those are: {', '.join(known)}")
    return field


class Hold(Strict):
    """A field in which the loop leaves a difference as it is, and whom to ask about it."""

    field: str
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    owner: DisplayName
    until: AwareDatetime | None = Field(default=None, description="After this moment it is enforced again.")


class EnvironmentHold(Hold):
    field: Annotated[
        str,
        StringConstraints(max_length=200),
        AfterValidator(_field_of_environment),
        Field(description=f"One of: {', '.join(ENVIRONMENT_FIELDS)}."),
    ]


class NodeHold(Hold):
    field: Annotated[
        str,
        StringConstraints(max_length=200),
        AfterValidator(_field_of_node),
        Field(description=f"One of: {', '.join(NODE_FIELDS)}."),
    ]


class Reconcile(Strict):
    mode: ReconcileMode = ReconcileMode.ENFORCE
    reason: str | None = Field(default=None, max_length=500)
    until: AwareDatetime | None = Field(default=None, description="After this moment the mode is `enforce` again.")
    windows: tuple[Window, ...] = Field(
        default=(),
        max_length=20,
        description="When the loop applies; left out: always. What people ask for is done.",
    )


class EnvironmentReconcile(Reconcile):
    holds: tuple[EnvironmentHold, ...] = Field(
        default=(), max_length=50, description="Fields in which the loop tells a difference and leaves it."
    )


class NodeReconcile(Reconcile):
    holds: tuple[NodeHold, ...] = Field(
        default=(), max_length=50, description="Fields in which the loop tells a difference and leaves it."
    )


class PlatformReconcile(Strict):
    """What holds the loop back in the whole fleet."""

    windows: tuple[Window, ...] = Field(
        default=(),
        max_length=20,
        description="When the loop applies anything at all; the windows of a document narrow that further.",
    )
    blast_limit: int | None = Field(
        default=None,
        ge=1,
        description="When more environments than this would change at once, the loop leaves all of them to a person.",
    )
    node_blast_limit: int | None = Field(
        default=None,
        ge=1,
        description=(
            "When the baseline of more nodes than this would change at once, the loop leaves all of them to a person. "
            "A node that is new does not count."
        ),
    )


def effective_mode(reconcile: Reconcile, now: datetime) -> ReconcileMode:
    """The mode in force: ``until`` ends a mode that isn't ``enforce``."""
    if reconcile.until is not None and now >= reconcile.until:
        return ReconcileMode.ENFORCE
    return reconcile.mode


def in_force(holds: Sequence[Hold], now: datetime) -> tuple[Hold, ...]:
    """Those whose end has not come."""
    return tuple(hold for hold in holds if hold.until is None or now < hold.until)


def closed(windows: Sequence[Window], now: datetime) -> str | None:
    """Why nothing may be applied now, in words for a person; None: it may. A ``deny`` that is open wins over all."""
    for window in windows:
        if window.kind == "deny" and is_open(window, now):
            return f"Nothing is applied during {_name(window)}."
    allowing = [window for window in windows if window.kind == "allow"]
    if allowing and not any(is_open(window, now) for window in allowing):
        return f"Waits for {' or '.join(map(_name, allowing))}."
    return None


def is_open(window: Window, now: datetime) -> bool:
    """Whether one of its beginnings is less than its length ago."""
    began = last_due(window.cron, now, window.timezone)
    return began is not None and now - began.astimezone(UTC) < timedelta(minutes=window.minutes)


def _name(window: Window) -> str:
    return f"the window `{window.cron}` ({window.minutes} minutes, {window.timezone})"
