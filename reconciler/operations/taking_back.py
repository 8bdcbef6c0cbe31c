"""After a declared operation that failed for good, the store says again what is there.

The node has undone what it did; were the store left as it is, the loop would go on trying what was seen to fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import structlog

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, NotFound
from reconciler.core.intents import Edit, is_all
from reconciler.core.intents import take_back as edit_of
from reconciler.core.jobs import JobStatus, JobType
from reconciler.records.jobs import Job
from reconciler.state import State
from reconciler.store.importing import TRUEUP
from reconciler.store.repository import Snapshot

log = structlog.get_logger()

MOVES = frozenset(
    {
        JobType.SITE_IMPORT,
        JobType.DEPLOY,
        JobType.UPDATES,
        JobType.RESTORE,
        JobType.PROMOTE,
        JobType.SEARCH_REPLACE,
        JobType.DRIFT_ADOPT,
        JobType.DRIFT_DISCARD,
    }
)
"""Jobs that bring other code or content: taken back when they end badly."""
SETTINGS = frozenset({JobType.CACHE_UPDATE, JobType.DOMAIN_ADD, JobType.DOMAIN_REMOVE})
"""Taken back when they are cancelled; after a failure the loop goes on to bring them."""
_ENDED_BADLY = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})


def take_back(job: Job, state: State) -> str | None:
    """Put back what ``job`` had declared, unless somebody has declared something newer; the commit, if one was made.

    May be called again at any time: what was taken back isn't taken back twice.
    """
    if not _is_to_go(job) or not job.revision or not job.environment_id:
        return None
    why = f"Job {job.id} ({job.job_type}) {job.status}: {job.error_code or 'cancelled'}."
    return _put_back(job, job.environment_id, state, why)


def is_untouched_since(job: Job, state: State) -> bool:
    """Whether nobody has committed anything to the environment's document since the job ended.

    Then what a process that died then, or a store that was full, left declared may be taken back much later.
    """
    environment = state.fleet().environments.get(job.environment_id) if job.environment_id else None
    if environment is None or job.finished_at is None:
        return False
    newest = next((change for change, _ in state.repository.changes(environment.path, 1)), None)
    # Git keeps whole seconds: what was committed in the last of the job's may have come after it.
    return newest is not None and (newest.id == job.revision or newest.at < job.finished_at.replace(microsecond=0))


def withdraw(job: Job, state: State, subject: str) -> str | None:
    """Put back what ``job`` had declared although it goes well: it turned out that nothing has to change."""
    if not job.revision or not job.environment_id:
        return None
    return _put_back(job, job.environment_id, state, f"Job {job.id} ({job.job_type}).", subject)


def _put_back(job: Job, id_: UUID, state: State, why: str, subject: str | None = None) -> str | None:
    if not _still_declared(job, id_, state):
        return None
    before, declared = _entry(f"{job.revision}^", id_, state), _entry(str(job.revision), id_, state)
    if before is None or declared is None:
        return None
    declared_blob = state.repository.read(str(job.revision)).entries.get(before.path)
    text = state.repository.content(before.path, f"{job.revision}^")

    def edit(snapshot: Snapshot) -> Edit:
        fleet = state.fleet_of(snapshot.revision, snapshot.documents)
        taken = {domain.hostname for other, domain in fleet.domains.values() if other.id != id_}
        found = edit_of(before, declared, fleet.environment(id_), why, subject=subject, taken=taken)
        if found is None:
            raise Conflict("Nothing is left to take back.")
        untouched = snapshot.entries.get(before.path) == declared_blob
        if text is None or not untouched or not is_all(before, declared, taken):
            return found
        return replace(found, assign={}, unset={}, rewrite={before.path: text})

    try:
        revision = state.repository.commit(edit, TRUEUP).revision
    except (Conflict, NotFound):
        return None
    log.info("taken back", job=str(job.id), environment=before.key, revision=revision[:12])
    return revision


def _is_to_go(job: Job) -> bool:
    if job.job_type in SETTINGS:
        return job.status is JobStatus.CANCELLED
    return job.status in _ENDED_BADLY and job.job_type in MOVES


def _still_declared(job: Job, environment_id: UUID, state: State) -> bool:
    """A cheap look before history is read: whether the ids that the job brought are still those of the document."""
    environment = state.fleet().environments.get(environment_id)
    if environment is None or job.job_type in SETTINGS:
        return environment is not None
    intent: Mapping[str, Any] = job.intent or {}
    release, content = environment.manifest.spec.release, environment.manifest.spec.content
    ids = {str(one.id) for one in (release, content) if one}
    brought = {intent.get("release_id"), intent.get("content_id"), (intent.get("release") or {}).get("id")}
    return bool(ids & brought)


def _entry(revision: str, environment_id: UUID, state: State) -> EnvironmentEntry | None:
    try:
        snapshot = state.repository.read(revision)
    except NotFound:
        return None
    return state.fleet_of(snapshot.revision, snapshot.documents).environments.get(environment_id)
