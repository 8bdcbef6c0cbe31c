"""A drift report as data. What others wrote (paths, reasons, names) is printable and on one line in here.

Reports that are kept are read again by later versions: a field that is added later needs a default.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, model_validator

from reconciler.core.policy import ReconcileMode
from reconciler.core.status import DriftStatus

LONGEST = 500
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class Origin(StrEnum):
    """What a difference comes from, as far as records can tell."""

    DESIRED_MOVED = "desired-moved"
    OPERATOR = "operator"
    WORDPRESS_UPDATE = "wordpress-update"
    LOGIN = "login"
    SSH = "ssh"
    UPGRADED = "upgraded"
    UNFINISHED = "unfinished"
    MISSING = "missing"
    SERVICE = "service"
    CONTENT = "content"
    UNKNOWN = "unknown"


class SubjectStatus(StrEnum):
    """Of an environment or a node in a report. ``stalled``: its document cannot be used."""

    CLEAN = "clean"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"
    STALLED = "stalled"


class ReportTrigger(StrEnum):
    """Why a report was made."""

    SCHEDULE = "schedule"
    REQUEST = "request"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Difference(_Part):
    field: str
    desired: str | None
    observed: str | None
    cause: str
    origin: Origin
    evidence: str | None
    """What the origin was told by."""
    heals: bool
    since: datetime
    """When it was first seen, or for a moved document committed."""
    well_at: datetime | None
    """The last moment before at which it is known not to have been there."""
    held: str | None
    """Who has the loop leave it, until when and why."""

    @model_validator(mode="before")
    @classmethod
    def _kept_before_there_were_holds(cls, data: Any) -> Any:
        return {"held": None, **data} if isinstance(data, dict) else data


class Subject(_Part):
    """What environments and nodes have in common."""

    status: SubjectStatus
    note: str | None
    """Why nothing more is known, or nothing is decided."""
    unknown_since: datetime | None
    """Since when its node has not answered."""
    mode: ReconcileMode
    paused: str | None
    """Why nothing is done about it now: its own mode, or a hold on its node."""
    waits: str | None
    """What a reconcile waits for: a maintenance window, another environment, a newer commit."""
    differences: tuple[Difference, ...]
    more_differences: int
    """Beyond those that are named."""
    would: str | None
    """What a reconcile does about it."""
    notices: tuple[str, ...]
    """Told, and no drift."""
    observed_at: datetime | None


class EnvironmentDrift(Subject):
    id: UUID
    environment: str
    """``site/environment``"""
    site_name: str
    node: str
    checked_at: datetime | None
    """When its files were last compared."""


class NodeDrift(Subject):
    id: UUID
    node: str
    environments: int


class OrphanFound(_Part):
    node: str
    environment_id: str


class StalledDocument(_Part):
    path: str
    line: int | None
    message: str
    since: datetime | None


class Ignored(_Part):
    """How many differences rules leave out of drift."""

    moved: int
    """Content and code that only a copy changed: what a copy is for."""
    stayed: int
    """What only the environment that a copy was made from changed."""
    protected: int
    """Rows of tables that the promotion's preset protects."""


class Told(_Part):
    """One thing that changed between two reports."""

    kind: Literal["new", "gone", "changed"]
    subject: str
    text: str


class Counts(_Part):
    environments: int
    nodes: int
    drifted: int
    """Environments and nodes."""
    unknown: int
    stalled: int
    """Documents."""
    paused: int
    waiting: int
    """Environments and nodes: their reconcile waits."""


class ReportHead(_Part):
    """What a list tells of a report."""

    id: UUID
    created_at: datetime
    trigger: ReportTrigger
    requested_by: str | None
    revision: str
    status: DriftStatus
    headline: str
    counts: Counts


class Report(ReportHead):
    environments: tuple[EnvironmentDrift, ...]
    nodes: tuple[NodeDrift, ...]
    orphans: tuple[OrphanFound, ...]
    stalled: tuple[StalledDocument, ...]
    ignored: Ignored
    changes: tuple[Told, ...]
    """Since the report before."""

    @property
    def subjects(self) -> tuple[EnvironmentDrift | NodeDrift, ...]:
        return (*self.nodes, *self.environments)

    @property
    def is_quiet(self) -> bool:
        """Nothing to tell beyond its headline."""
        return not (self.orphans or self.stalled or any(not is_quiet(one) for one in self.subjects))


def is_quiet(subject: Subject) -> bool:
    """Whether there is nothing to tell of it."""
    return subject.status is SubjectStatus.CLEAN and subject.paused is None and not subject.notices


def name_of(subject: EnvironmentDrift | NodeDrift) -> str:
    return subject.environment if isinstance(subject, EnvironmentDrift) else subject.node


def printable(text: str, most: int = LONGEST) -> str:
    """``text`` on one line, without control and invisible formatting characters, and not too long."""
    line = " ".join(text.split())
    kept = "".join("�" if unicodedata.category(one) in _UNPRINTABLE else one for one in line)
    return kept if len(kept) <= most else f"{kept[: most - 1]}…"
