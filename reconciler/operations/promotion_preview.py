"""What a promotion would do now: what the last drift check found by name, and what it would be refused for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, NotFound
from reconciler.core.intents.content import refuse_unpromotable
from reconciler.core.node_answer import AnswerRefused, understood
from reconciler.core.promotion import checked
from reconciler.core.promotion_preview import Preview
from reconciler.operations.gates import refuse_unmet_gates
from reconciler.records.drift import DriftCheck
from reconciler.state import State

RESULT = "promotion"
"""Where a drift check's result has its Preview."""


@dataclass(frozen=True)
class Previewed:
    """``preview``, ``checked_at`` and ``job_id`` are None where the newest drift check compared with another target,
    there is none, or it is from before previews were made.
    """

    source_id: UUID
    target_id: UUID
    unmet: Conflict | None
    """What it would be refused for, by code ``conflict`` or a gate's; None: it would be accepted."""
    preview: Preview | None = None
    checked_at: datetime | None = None
    job_id: UUID | None = None


def preview_of(source_id: UUID, target_id: UUID, state: State, now: datetime) -> Previewed:
    """Asks no node.

    Raises:
        NotFound: one of both is not declared.
    """
    fleet = state.fleet()
    unmet = _unmet(fleet.environment(source_id), fleet.environment(target_id), state, now)
    check = state.records.drift_checks.latest(source_id)
    preview = _kept(check, target_id, state) if check else None
    if check is None or preview is None:
        return Previewed(source_id, target_id, unmet)
    return Previewed(source_id, target_id, unmet, preview, check.created_at, check.job_id)


def _unmet(source: EnvironmentEntry, target: EnvironmentEntry, state: State, now: datetime) -> Conflict | None:
    try:
        refuse_unpromotable(source, target)
        refuse_unmet_gates(source.id, target.id, state, now)
    except Conflict as error:
        return error
    return None


def _kept(check: DriftCheck, target_id: UUID, state: State) -> Preview | None:
    """Of the check's job, which has it: a check is read with every report, and a preview is not."""
    if check.job_id is None or checked(check.created_at, check.differences).target != str(target_id):
        return None
    try:
        found = (state.records.jobs.get(check.job_id).result or {}).get(RESULT)
        return understood(Preview, found) if found is not None else None
    except (NotFound, AnswerRefused):
        # The job is forgotten, or an older version made it: another check tells.
        return None
