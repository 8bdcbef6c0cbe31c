"""How what is asked for becomes a job, and where it changes what should be, a commit.

The job's row comes first, then the commit that carries its id, then the mark that the job may run. A crash in
between loses neither: ``recover`` matches the rows that have no commit yet with the history, and makes the commit
where there is none, from the intent in the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, Invalid, NotFound, PreconditionFailed, TrueupError
from reconciler.core.fleet import Fleet
from reconciler.core.intents import Edit, Intent, evaluate
from reconciler.core.jobs import JobErrorCode, JobStatus, JobType
from reconciler.core.status import EnvironmentStatus, summarize
from reconciler.dispatch import Dispatcher
from reconciler.identity import identity, is_dead
from reconciler.operations.aftermath import REMOVALS, removed_by, wind_up
from reconciler.operations.preconditions import Precondition, refuse_moved
from reconciler.operations.taking_back import SETTINGS, is_untouched_since, take_back
from reconciler.records.audit import Entry as AuditEntry
from reconciler.records.idempotency import Key
from reconciler.records.jobs import FINISHED, Job, JobFilter, NewJob
from reconciler.records.locks import Lock, node_lock, site_lock
from reconciler.state import State
from reconciler.store.repository import Author, Snapshot

SETTLED = timedelta(seconds=60)
"""How long a living process may take between a declaration's row and its mark; the store's patience is 45 s."""

FRESH = timedelta(seconds=5)
"""How long a worker may take between a job's end and what that makes of its environment."""

A_DAY = timedelta(days=1)
MOST_CANCELLED = 50
"""So many of the latest cancelled changes of settings, and of drills that ended badly, are looked at again."""

_INTENT: TypeAdapter[Intent] = TypeAdapter(Intent)


def intent_of(job: Job) -> tuple[Intent, dict[str, Any]]:
    """The intent in a job's row, and what else is stored with it.

    Raises:
        ValidationError: the row holds none.
    """
    stored = dict(job.intent or {})
    names = stored.keys() & {"actor", "declarer", "if_match"}
    others = {name: stored.pop(name) for name in names}
    return _INTENT.validate_python(stored), others


@dataclass(frozen=True)
class Terms:
    """On which conditions somebody asks; none, unless the request has the headers for it."""

    key: Key | None = None
    precondition: Precondition | None = None


@dataclass(frozen=True)
class Actor:
    """Who asks, and the address that the request came from (empty: this host)."""

    name: str
    email: str
    source: str = ""
    terms: Terms = Terms()

    def stored(self) -> dict[str, str]:
        """As a job's row keeps it."""
        return {"name": self.name, "email": self.email, "source": self.source}


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
        stored = {**intent.model_dump(mode="json"), "actor": actor.stored(), "declarer": self._declarer}
        if precondition := actor.terms.precondition:
            stored["if_match"] = precondition.stored()
        new = _new_job(job_id, job_type, target, stored, actor, declared=True)
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
            refuse_moved(actor.terms.precondition, fleet, self._state, snapshot.pending)
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
        dedupe_key: str | None = None,
    ) -> UUID:
        """A job that declares nothing; its id. ``deliberate``: somebody asked, so it runs on what is failed too.

        Where ``dedupe_key`` is that of a queued job, it is that one's id.
        """
        refuse_moved(actor.terms.precondition, self._state.fleet(), self._state)
        job_id = self._new_id()
        stored = {"operation": job_type.value, "deliberate": deliberate, "actor": actor.stored(), **(details or {})}
        new = replace(_new_job(job_id, job_type, target, stored, actor), dedupe_key=dedupe_key)
        job_id = self._records.jobs.enqueue(new, self._clock()).id
        self._audit(job_type, target, actor, job_id, "accepted", stored)
        self._dispatcher.wake()
        return job_id

    def statuses(self) -> dict[UUID, EnvironmentStatus]:
        """Of every environment that has one."""
        return {id_: self._records.status_of(row) for id_, row in self._records.statuses.all().items()}

    def _busy(self, job_type: JobType, environment_id: UUID | None, job_id: UUID) -> None:
        if environment_id is None:
            return
        row = self._records.statuses.get(environment_id)
        before = self._records.status_of(row) if row else EnvironmentStatus.ACTIVE
        after = summarize(job_type, JobStatus.QUEUED, before)
        if after is not before:
            self._records.statuses.put(environment_id, after, self._clock(), job_id=job_id)

    def cancel(self, job_id: UUID, actor: Actor) -> Job:
        """Cancel a job in the queue at once, or have the worker of a running one stop it; the job.

        Raises:
            Conflict: it has ended, or is past where it could stop.
        """
        job = self._records.jobs.get(job_id)
        if job.job_type == JobType.OPERATOR_RUN and job.status is JobStatus.RUNNING:
            who = (job.intent or {}).get("actor", {}).get("name")
            raise Conflict(f"Job {job_id} is a playbook that {who} runs by hand. End it where it runs.")
        if JobType(job.job_type) in REMOVALS and job.status is JobStatus.RUNNING and removed_by(job, self._state):
            raise Conflict(f"Job {job_id} has removed the documents, and finishes what it began. Wait for its end.")
        job = self._records.jobs.cancel(job_id, self._clock(), actor.terms.key)
        target = Target(job.site_id, job.environment_id, job.node_id)
        self._audit("job-cancel", target, actor, job_id, "accepted", {"job_type": job.job_type})
        if job.status is JobStatus.CANCELLED:
            wind_up(job, self._state, self._clock())
        self._dispatcher.wake()
        return job

    def _audit(
        self, operation: str, target: Target, actor: Actor, job_id: UUID, outcome: str, summary: Mapping[str, Any]
    ) -> None:
        entry = AuditEntry(
            who=actor.email,
            source=actor.source,
            operation=operation,
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
        """Finish what is left to do after jobs that ended where nobody had the time to: see ``aftermath``."""
        before = self._clock() - FRESH
        for row in self._records.statuses.all().values():
            if EnvironmentStatus(row.status) is EnvironmentStatus.ACTIVE or row.job_id is None:
                continue
            with suppress(NotFound):
                job = self._records.jobs.get(row.job_id)
                if job.finished_at and job.finished_at < before:
                    wind_up(job, self._state, self._clock())
        # An environment's status tells nothing of these.
        drills = JobFilter(statuses=FINISHED - {JobStatus.SUCCEEDED}, job_types=frozenset({JobType.DRILL}))
        for job in self._records.jobs.page(drills, limit=MOST_CANCELLED).jobs:
            if job.finished_at is not None and before - A_DAY < job.finished_at < before:
                wind_up(job, self._state, self._clock())
        cancelled = JobFilter(statuses=frozenset({JobStatus.CANCELLED}), job_types=SETTINGS)
        for job in self._records.jobs.page(cancelled, limit=MOST_CANCELLED).jobs:
            is_recent = job.finished_at is not None and before - A_DAY < job.finished_at < before
            if is_recent and is_untouched_since(job, self._state):
                take_back(job, self._state)

    def _recover(self, job: Job, committed: Mapping[str, str]) -> bool:
        revision = committed.get(str(job.id))
        if revision is None:
            intent, others = intent_of(job)
            actor = Actor(**others["actor"], terms=Terms(precondition=Precondition.of(others.get("if_match"))))
            try:
                revision = self._commit(intent, job.id, actor)
            except (Conflict, NotFound, Invalid, PreconditionFailed) as error:
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
    job_id: UUID, job_type: JobType, target: Target, intent: dict[str, Any], actor: Actor, *, declared: bool = False
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
        key=actor.terms.key,
    )
