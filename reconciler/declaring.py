"""How what is asked for becomes a job, and where it changes what should be, a commit.

The job's row comes first, then the commit that carries its id, then the mark that the job may run. A crash in
between loses neither: ``recover`` matches the rows that have no commit yet with the history, and makes the commit
where there is none, from the intent in the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, Invalid, NotFound, TrueupError
from reconciler.core.fleet import Fleet
from reconciler.core.intents import Edit, Intent, evaluate
from reconciler.core.jobs import JobErrorCode, JobStatus, JobType
from reconciler.core.status import EnvironmentStatus, summarize
from reconciler.dispatch import Dispatcher
from reconciler.identity import identity, is_dead
from reconciler.records.audit import Entry as AuditEntry
from reconciler.records.jobs import Job, NewJob
from reconciler.records.locks import Lock, node_lock, site_lock
from reconciler.state import State
from reconciler.store.repository import Author, Snapshot
from reconciler.taking_back import take_back

SETTLED = timedelta(seconds=60)
"""How long a living process may take between a declaration's row and its mark; the store's patience is 45 s."""

FRESH = timedelta(seconds=5)
"""How long a worker may take between a job's end and what that makes of its environment."""

_INTENT: TypeAdapter[Intent] = TypeAdapter(Intent)


@dataclass(frozen=True)
class Actor:
    """Who asks, and the address that the request came from (empty: this host)."""

    name: str
    email: str
    source: str = ""


@dataclass(frozen=True)
class Target:
    """What a job is about."""

    site_id: UUID | None = None
    environment_id: UUID | None = None
    node_id: UUID | None = None
    locks: tuple[Lock, ...] = ()


class Declarations:
    """Makes the rows and the commits, and finishes after a crash what was begun."""

    def __init__(
        self,
        state: State,
        dispatcher: Dispatcher,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._state = state
        self._records = state.records
        self._dispatcher = dispatcher
        self._clock = clock
        self._new_id = new_id
        self._declarer = identity("declarer")

    def declare(self, intent: Intent, job_type: JobType, target: Target, actor: Actor) -> UUID:
        """A job and the commit that carries its id; the job's id.

        Raises:
            TrueupError: the intent is refused on the head that it would stand on; no row is left of it.
        """
        job_id = self._new_id()
        stored = {**intent.model_dump(mode="json"), "actor": vars(actor), "declarer": self._declarer}
        new = _new_job(job_id, job_type, target, stored, declared=True)
        self._records.jobs.enqueue(new, self._clock())
        try:
            revision = self._commit(intent, job_id, actor)
        except TrueupError as error:
            self._records.jobs.discard(job_id)
            self._audit(job_type, target, actor, job_id, error.code, stored)
            raise
        self._busy(job_type, target.environment_id, job_id)
        self._audit(job_type, target, actor, job_id, "accepted", stored)
        self._records.jobs.mark_committed(job_id, revision, self._clock())
        self._dispatcher.wake()
        return job_id

    def _commit(self, intent: Intent, job_id: UUID, actor: Actor) -> str:
        def edit(snapshot: Snapshot) -> Edit:
            fleet = self._state.fleet_of(snapshot.revision, snapshot.documents)
            return evaluate(intent, fleet, self.statuses(), self._clock())

        author = Author(actor.name, actor.email)
        return self._state.repository.commit(edit, author, str(job_id)).revision

    def enqueue(
        self,
        job_type: JobType,
        target: Target,
        actor: Actor,
        *,
        deliberate: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> UUID:
        """A job that declares nothing; its id. ``deliberate``: somebody asked, so it runs on what is failed too."""
        job_id = self._new_id()
        stored = {"operation": job_type.value, "deliberate": deliberate, "actor": vars(actor), **(details or {})}
        self._records.jobs.enqueue(_new_job(job_id, job_type, target, stored), self._clock())
        self._audit(job_type, target, actor, job_id, "accepted", stored)
        self._dispatcher.wake()
        return job_id

    def statuses(self) -> dict[UUID, EnvironmentStatus]:
        """Of every environment that has one."""
        return {id_: EnvironmentStatus(row.status) for id_, row in self._records.statuses.all().items()}

    def _busy(self, job_type: JobType, environment_id: UUID | None, job_id: UUID) -> None:
        if environment_id is None:
            return
        row = self._records.statuses.get(environment_id)
        before = EnvironmentStatus(row.status) if row else EnvironmentStatus.ACTIVE
        after = summarize(job_type, JobStatus.QUEUED, before)
        if after is not before:
            self._records.statuses.put(environment_id, after, self._clock(), job_id=job_id)

    def _audit(
        self, job_type: JobType, target: Target, actor: Actor, job_id: UUID, outcome: str, summary: Mapping[str, Any]
    ) -> None:
        entry = AuditEntry(
            who=actor.email,
            source=actor.source,
            operation=job_type.value,
            outcome=outcome,
            site_id=target.site_id,
            environment_id=target.environment_id,
            node_id=target.node_id,
            job_id=job_id,
            summary={key: value for key, value in summary.items() if key not in {"actor", "declarer"}},
        )
        self._records.audit.append(entry, self._clock())

    def recover(self) -> list[UUID]:
        """Finish what a crash interrupted between a job's row and its mark. The ids of the jobs that may run now.

        Rows younger than ``SETTLED`` are left alone, unless the process that wrote them is gone: it may be about to
        commit.
        """
        before = self._clock() - SETTLED
        waiting = [job for job in self._records.jobs.uncommitted() if job.created_at < before or _is_orphan(job)]
        committed = self._state.repository.jobs_in_history([str(job.id) for job in waiting]) if waiting else {}
        recovered = [job.id for job in waiting if self._recover(job, committed)]
        if recovered:
            self._dispatcher.wake()
        return recovered

    def settle(self) -> None:
        """Say how it ended where a finished job left its environment busy: cancelled, or its worker was killed.

        What a job had declared that ended badly is taken back, if its worker had no time to.
        """
        for environment_id, row in self._records.statuses.all().items():
            before = EnvironmentStatus(row.status)
            if before is EnvironmentStatus.ACTIVE or row.job_id is None:
                continue
            with suppress(NotFound):
                job = self._records.jobs.get(row.job_id)
                if before is not EnvironmentStatus.FAILED:
                    self._settle(environment_id, before, job)
                take_back(job, self._state)

    def _settle(self, environment_id: UUID, before: EnvironmentStatus, job: Job) -> None:
        if job.finished_at and job.finished_at < self._clock() - FRESH:
            after = summarize(JobType(job.job_type), JobStatus(job.status), before)
            self._records.statuses.put(environment_id, after, self._clock(), job_id=job.id)

    def _recover(self, job: Job, committed: Mapping[str, str]) -> bool:
        revision = committed.get(str(job.id))
        if revision is None:
            stored = dict(job.intent or {})
            actor = Actor(**stored.pop("actor"))
            stored.pop("declarer", None)
            try:
                revision = self._commit(_INTENT.validate_python(stored), job.id, actor)
            except (Conflict, NotFound, Invalid) as error:
                self._records.jobs.reject(job.id, JobErrorCode.JOB_CONFLICT, error.message, self._clock())
                return False
        self._records.jobs.mark_committed(job.id, revision, self._clock())
        self._busy(JobType(job.job_type), job.environment_id, job.id)
        return True


def _is_orphan(job: Job) -> bool:
    return is_dead(str((job.intent or {}).get("declarer", "")))


def target_of(fleet: Fleet, environment_id: UUID) -> Target:
    """The ids and locks of a job about an environment."""
    environment: EnvironmentEntry = fleet.environment(environment_id)
    site, node = fleet.site_of(environment), fleet.node_of(environment)
    locks = [site_lock(site.id)] if site else []
    if node:
        locks.append(node_lock(node.id, node.manifest.spec.concurrency))
    return Target(site.id if site else None, environment_id, node.id if node else None, tuple(locks))


def node_target(fleet: Fleet, node_id: UUID) -> Target:
    """The ids and locks of a job about a node: it has the node to itself."""
    node = fleet.node(node_id)
    return Target(node_id=node_id, locks=(node_lock(node_id, node.manifest.spec.concurrency),))


def _new_job(
    job_id: UUID, job_type: JobType, target: Target, intent: dict[str, Any], *, declared: bool = False
) -> NewJob:
    return NewJob(
        id=job_id,
        job_type=job_type,
        site_id=target.site_id,
        environment_id=target.environment_id,
        node_id=target.node_id,
        locks=target.locks,
        intent=intent,
        declared=declared,
    )
