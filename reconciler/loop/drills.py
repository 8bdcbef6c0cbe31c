"""Drills: an environment's newest backup is restored into a throwaway copy on its node and checked.

What is served is not touched, and nothing of the copy is left: where a drill was stopped, another job clears. A drill
that failed because of the backup is kept with it; one that the node or the storage got in the way of says nothing about
it, and only its job tells.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from reconciler.core.actions import DrillBackup
from reconciler.core.drills import OUT_OF_TIME, VERDICTS, Drillable, drill_of, is_due
from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.errors import Conflict, JobError
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode, JobStatus
from reconciler.core.node_answer import AnswerRefused, understood
from reconciler.core.observed import Count
from reconciler.core.visible import visible
from reconciler.loop.backups import addresses_of
from reconciler.loop.results import failure
from reconciler.loop.tools import Inputs, Run, Tools
from reconciler.operations.declaring import Actor
from reconciler.operations.drills import backup_to_drill, drill_key
from reconciler.operations.requests import Operations
from reconciler.records.backups import Backup
from reconciler.records.jobs import JobFilter
from reconciler.records.outcomes import Failed, Outcome, Stopped, Succeeded
from reconciler.state import State
from reconciler.storage.kept import manifest_of, storage_of

LONGEST = 1_000
"""Characters of why a drill failed that are kept with the backup; the job has all."""


class Drilled(BaseModel):
    """What a node says of a drill that went well."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    tables: Count | None = None
    rows: Count | None = None
    files: Count | None = None
    pages: Annotated[int, Field(ge=0, le=100)] = 0
    """How many pages WordPress made of it."""


def drill(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Try the newest completed backup of one environment, as ``backup_to_drill`` chooses it.

    Raises:
        JobError: there is none, or its storage does not do its part.
    """
    fleet, records = tools.state.fleet(), tools.state.records.backups
    environment = _drillable(environment_id, fleet)
    if isinstance(environment, Failed):
        return environment
    backup = backup_to_drill(environment, fleet, tools.state.records, tools.clock())
    if backup is None:
        raise JobError(JobErrorCode.BACKUP_DAMAGED, f"{environment.key} has no completed backup any more. Make one.")
    try:
        outcome = _try(backup, environment, tools, fleet, run)
    except JobError as error:
        outcome = Failed(error.job_code, error.message)
    # What was told to stop says nothing about the backup.
    if isinstance(outcome, Failed) and outcome.error_code in VERDICTS and not run.cancel.is_set():
        records.drilled(backup.id, tools.clock(), visible(outcome.message.partition("\n\n")[0], LONGEST))
    elif isinstance(outcome, Succeeded):
        records.drilled(backup.id, tools.clock(), None)
    elif isinstance(outcome, Failed) and outcome.error_code in OUT_OF_TIME:
        outcome = replace(outcome, result={"backup_id": str(backup.id)})
    return Stopped() if run.cancel.is_set() and not isinstance(outcome, Succeeded) else outcome


def clear(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Take away what a drill of the environment left on its node; nothing else is done, nor said of any backup."""
    fleet = tools.state.fleet()
    environment = _drillable(environment_id, fleet)
    if isinstance(environment, Failed):
        return environment
    node = _node_of(environment, fleet)
    action = DrillBackup(node.slug, node.id, environment.id, fleet.environment_variables(environment.id))
    result = tools.apply(action, fleet, run, Inputs({"trueup_clear": True}))
    return failure(result) or Succeeded({"cleared": True})


def _drillable(environment_id: UUID, fleet: Fleet) -> EnvironmentEntry | Failed:
    environment = fleet.environments.get(environment_id)
    if environment is not None and not environment.stalled:
        return environment
    reason = environment.stalled if environment else f"No document says what environment {environment_id} is."
    code = JobErrorCode.DOCUMENT_STALLED if environment else JobErrorCode.TARGET_MISSING
    return Failed(code, f"{reason} Nothing was done.")


def _node_of(environment: EnvironmentEntry, fleet: Fleet) -> NodeEntry:
    node = fleet.node_of(environment)
    if node is None:
        raise JobError(JobErrorCode.TARGET_MISSING, f"The node of {environment.key} has no document.")
    return node


def _try(backup: Backup, environment: EnvironmentEntry, tools: Tools, fleet: Fleet, run: Run) -> Outcome:
    node = _node_of(environment, fleet)
    storage = storage_of(fleet, tools.settings)
    manifest = manifest_of(backup, storage)
    urls = addresses_of(backup, storage)
    variables = fleet.environment_variables(environment.id)
    if version := manifest.get("wordpress_version"):
        variables = variables.model_copy(update={"wordpress_version": str(version)})
    action = DrillBackup(node.slug, node.id, environment.id, variables)
    inputs = Inputs({"trueup_backup": {"manifest": manifest, "urls": urls}}, tuple(urls.values()))
    result = tools.apply(action, fleet, run, inputs)
    if failed := failure(result):
        return failed
    found = next((one.data["drilled"] for one in reversed(result.results) if "drilled" in one.data), None)
    try:
        told = understood(Drilled, found)
    except AnswerRefused as error:
        message = f"What {node.slug} says of the drill cannot be understood: {error}"
        return Failed(JobErrorCode.ANSIBLE_UNEXPECTED_ERROR, message)
    return Succeeded({"backup_id": str(backup.id), **told.model_dump(mode="json")})


# The clock


def ask_for_due(state: State, operations: Operations, actor: Actor, now: datetime) -> list[UUID]:
    """Ask for a drill of each environment whose moment has come; the jobs' ids."""
    fleet = state.fleet()
    if fleet.platform.spec.backups is None:
        return []
    asked = []
    last = state.records.backups.last_drills(now)
    for environment_id, first in state.records.backups.first_completed().items():
        environment = fleet.environments.get(environment_id)
        if environment is None or environment.stalled:
            continue
        if _is_due(environment, first, last.get(environment_id), state, now):
            with suppress(Conflict):  # paused: the next look asks again
                asked.append(operations.drill(environment_id, actor))
    return asked


def _is_due(
    environment: EnvironmentEntry, first: datetime, drilled: Backup | None, state: State, now: datetime
) -> bool:
    fleet, environment_id = state.fleet(), environment.id
    drill = drill_of(environment, fleet)
    every = drill.every
    known = Drillable(first, newest_passed=False, asked_at=drilled.drilled_at if drilled else None)
    # The jobs and the newest backup are only asked for where it matters.
    if not is_due(environment_id, every, known, now):
        return False
    asked = JobFilter(
        dedupe_key=drill_key(environment_id),
        statuses=frozenset(JobStatus) - {JobStatus.CANCELLED},
        created_until=now,
    )
    moments = [job.created_at for job in state.records.jobs.page(asked, limit=1).jobs]
    if known.asked_at:
        moments.append(known.asked_at)
    cancelled = replace(asked, statuses=frozenset({JobStatus.CANCELLED}))
    stopped = next(iter(state.records.jobs.page(cancelled, limit=1).jobs), None)
    # A promotion that asks for a drill asks for a recent one, whether there is a newer backup or not.
    newest = None if drill.required_for_promotion else backup_to_drill(environment, fleet, state.records, now)
    passed = newest is not None and newest.drill_status == "passed"
    known = Drillable(first, passed, max(moments, default=None), stopped.finished_at if stopped else None)
    return is_due(environment_id, every, known, now)
