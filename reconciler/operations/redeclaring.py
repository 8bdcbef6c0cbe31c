"""What jobs declared, declared anew on what upstream has; and what becomes of those that upstream left no room for.

An intent is held against the documents only: whether its environment was free was judged when it was taken on.
Everything here may be done again at any time, so that a process that is killed half-way loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from uuid import UUID

import structlog
from pydantic import TypeAdapter, ValidationError

from reconciler.core.errors import NotFound, PreconditionFailed
from reconciler.core.intents import Edit, Intent, RemoveEnvironment, RemoveSite, evaluate
from reconciler.operations.aftermath import wind_up
from reconciler.operations.declaring import intent_of
from reconciler.operations.preconditions import Precondition, resource_of
from reconciler.records.jobs import FINISHED, OPEN, Job, JobFilter
from reconciler.state import State
from reconciler.store.replay import Redo, Replayed
from reconciler.store.repository import Evaluate, Snapshot
from reconciler.store.upstream import Dropped

log = structlog.get_logger()

_REMOVAL: TypeAdapter[RemoveEnvironment | RemoveSite] = TypeAdapter(RemoveEnvironment | RemoveSite)


class Redeclaring:
    """Jobs and the commits that upstream makes them need anew."""

    def __init__(self, state: State, clock: Callable[[], datetime]) -> None:
        self._state = state
        self._records = state.records
        self._clock = clock

    def on(self, remote: str, changed: frozenset[str]) -> Redo:
        """How a job's intent is evaluated on top of ``remote``, which changed these paths."""

        def redo(job_id: str) -> Evaluate | None:
            try:
                job = self._records.jobs.get(UUID(job_id))
                intent, precondition = _stored(job)
            except (ValueError, NotFound, ValidationError):
                return None
            return lambda snapshot: self._edit(snapshot, intent, precondition, job, changed)

        log.info("upstream has what this store has not", remote=remote[:12], documents=len(changed))
        return redo

    def _edit(
        self,
        snapshot: Snapshot,
        intent: Intent,
        precondition: Precondition | None,
        job: Job,
        changed: frozenset[str],
    ) -> Edit:
        fleet = self._state.fleet_of(snapshot.revision, snapshot.documents)
        if precondition and resource_of(precondition, fleet)[0] in changed:
            raise PreconditionFailed(f"The {precondition.kind} was changed upstream after it was looked at.")
        return evaluate(intent, fleet, {}, job.created_at)

    def settle(self, done: Replayed) -> None:
        """Tell the jobs which commits declare them now, and end those whose commit was left out."""
        self._records.recommitting.recommit(
            {commit.id: made for commit, made in done.moved.items() if commit.job}, self._clock()
        )
        for commit, reason in done.dropped.items():
            log.error("left out, upstream leaves no room for it", commit=commit.id, job=commit.job, reason=reason)
        self.straighten()

    def straighten(self) -> None:
        """Finish what a killed process had begun to tell the jobs."""
        for dropped in self._state.repository.upstream.dropped():
            self._end(dropped)
        self._find_commits()

    def _end(self, dropped: Dropped) -> None:
        if dropped.job is None:
            return
        try:
            job = self._records.jobs.get(UUID(dropped.job))
        except (ValueError, NotFound):
            return
        if job.status in FINISHED:
            return
        message = f"{dropped.reason} Upstream left no room for this; its commit is kept as {dropped.id[:12]}."
        job = self._records.recommitting.overtake(job.id, message, self._clock())
        if job.status in FINISHED:
            wind_up(job, self._state, self._clock())

    def _find_commits(self) -> None:
        """Jobs that wait or run and whose commit is not in the branch any more: it was made anew."""
        declared = {str(job.id): job.revision for job in self._open_jobs() if job.revision}
        lost = self._state.repository.upstream.astray(declared.values())
        astray = {id_: revision for id_, revision in declared.items() if revision in lost}
        found = self._state.repository.jobs_in_history(astray) if astray else {}
        self._records.recommitting.recommit({astray[id_]: made for id_, made in found.items()}, self._clock())

    def _open_jobs(self) -> Iterator[Job]:
        cursor = None
        while True:
            page = self._records.jobs.page(JobFilter(statuses=OPEN), 1000, cursor)
            yield from page.jobs
            cursor = page.next_cursor
            if cursor is None:
                return


def _stored(job: Job) -> tuple[Intent, Precondition | None]:
    """The intent and the condition in a job's row.

    Raises:
        ValidationError: it has none, or one of another version of Trueup.
    """
    if removal := (job.intent or {}).get("removal"):
        return _REMOVAL.validate_python(removal), None
    intent, others = intent_of(job)
    return intent, Precondition.of(others.get("if_match"))
