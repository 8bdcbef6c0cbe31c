"""A playbook that somebody runs by hand, as a job: it has the locks of what it is about for as long as it runs.

No worker takes such a job. The process that asked for it claims it, keeps its lease, and ends it with the playbook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from reconciler.core.errors import Conflict
from reconciler.core.jobs import JobErrorCode, JobStatus, JobType
from reconciler.dispatch import Dispatcher
from reconciler.identity import identity, is_dead
from reconciler.operations.declaring import Actor, Target, node_target, target_of
from reconciler.records.audit import Entry
from reconciler.records.jobs import Job, JobFilter, NewJob, operator_of
from reconciler.records.outcomes import Failed, Outcome, Succeeded
from reconciler.records.queue import Claimed, Queue
from reconciler.state import Records, State

LONGEST_WAIT = timedelta(hours=1)
"""How long a run may wait for its locks; of one that waits longer, the process is gone."""
COUNTS = ("ok", "changed", "failures", "unreachable", "skipped", "rescued", "ignored")


@dataclass(frozen=True)
class Asked:
    """Who runs which playbook, on an environment, on nodes, or both."""

    playbook: str
    actor: Actor
    environment_id: UUID | None = None
    node_ids: tuple[UUID, ...] = ()


class OperatorRuns:
    """Takes runs in, gives them their locks, and says how they ended."""

    def __init__(
        self,
        state: State,
        queue: Queue,
        dispatcher: Dispatcher,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._state = state
        self._records = state.records
        self._queue = queue
        self._dispatcher = dispatcher
        self._clock = clock
        self._new_id = new_id
        self._holder = identity("by-hand")

    def ask(self, asked: Asked, *, locked: bool = True) -> Job:
        """The job, in line for its locks; with ``locked=False`` it takes none.

        Raises:
            NotFound: what it is about is not declared.
        """
        target = self._target(asked)
        intent = {
            "operation": JobType.OPERATOR_RUN.value,
            "playbook": asked.playbook,
            "actor": asked.actor.stored(),
            "holder": self._holder,
            "nodes": [str(id_) for id_ in asked.node_ids],
        }
        new = NewJob(
            id=self._new_id(),
            job_type=JobType.OPERATOR_RUN,
            site_id=target.site_id,
            environment_id=target.environment_id,
            node_id=target.node_id,
            locks=target.locks if locked else (),
            intent=intent,
            max_attempts=1,
        )
        job = self._records.jobs.enqueue(new, self._clock())
        self._audit(job, asked.actor)
        return job

    def begin(self, job: Job, *, in_line: bool) -> Claimed | None:
        """The run with its locks; None: somebody else has them."""
        name = (job.intent or {})["actor"]["name"]
        return self._queue.claim_one(job.id, identity(f"by-hand:{name}"), self._clock(), in_line=in_line)

    def give_up(self, job: Job) -> str:
        """Take the run out of the line; what kept it from running."""
        blocker = self._queue.blocker(job)
        with suppress(Conflict):
            self._records.jobs.cancel(job.id, self._clock())
        self._dispatcher.wake()
        if blocker is None:
            return f"Job {job.id} was cancelled, or its locks were given back only now. Run the playbook again."
        return f"{_told(blocker)} Wait for it: trueup job follow {blocker.id}"

    def end(self, claimed: Claimed, hosts: Mapping[str, Mapping[str, int]] | None) -> Job:
        """Give the locks back. ``hosts``: what Ansible counted on each; None: it ended without saying.

        Raises:
            LateFence: the lease ran out meanwhile, and the job ended then.
        """
        job = self._queue.finish(claimed.job.id, claimed.fence, outcome_of(hosts), self._clock())
        self._dispatcher.wake()
        return job

    def _target(self, asked: Asked) -> Target:
        fleet = self._state.fleet()
        each = [node_target(fleet, id_) for id_ in sorted(asked.node_ids)]
        about = each[0] if len(each) == 1 else Target()
        if asked.environment_id is not None:
            about = target_of(fleet, asked.environment_id)
        # The site's before the nodes', as every job lists them.
        locks = {lock.resource: lock for one in (about, *each) for lock in one.locks}
        return replace(about, locks=tuple(locks.values()))

    def _audit(self, job: Job, actor: Actor) -> None:
        entry = Entry(
            who=actor.email,
            source=actor.source,
            operation=job.job_type,
            outcome="accepted",
            site_id=job.site_id,
            environment_id=job.environment_id,
            node_id=job.node_id,
            job_id=job.id,
            summary={"playbook": (job.intent or {})["playbook"]},
        )
        self._records.audit.append(entry, self._clock())


def outcome_of(hosts: Mapping[str, Mapping[str, int]] | None) -> Outcome:
    """How a playbook ended that counted this on each host."""
    if hosts is None:
        message = "The playbook ended before its end: interrupted or killed. Run it again, or `trueup apply`."
        return Failed(JobErrorCode.ANSIBLE_UNKNOWN_EXIT, message)
    result: dict[str, Any] = {
        "hosts": {name: {word: int(counts.get(word, 0)) for word in COUNTS} for name, counts in hosts.items()}
    }
    for word, code, what in (
        ("unreachable", JobErrorCode.ANSIBLE_HOST_UNREACHABLE, "could not be reached"),
        ("failures", JobErrorCode.ANSIBLE_HOST_FAILED, "had a task that failed"),
    ):
        if concerned := _with(hosts, word):
            message = f"{', '.join(concerned)} {what}. The operator has seen what Ansible said."
            return Failed(code, message, result)
    return Succeeded(result)


def forget_abandoned(records: Records, now: datetime) -> int:
    """Take runs out of the line whose process is gone: they would keep others from their locks; how many."""
    waiting = JobFilter(statuses=frozenset({JobStatus.QUEUED}), job_types=frozenset({JobType.OPERATOR_RUN}))
    gone = [job for job in records.jobs.page(waiting, limit=1000).jobs if _is_abandoned(job, now)]
    for job in gone:
        with suppress(Conflict):  # it got its locks at this moment
            message = "The playbook's process vanished while it waited for its locks. Run it again."
            records.jobs.reject(job.id, JobErrorCode.JOB_LEASE_LOST, message, now)
    return len(gone)


def _is_abandoned(job: Job, now: datetime) -> bool:
    return is_dead(str((job.intent or {}).get("holder", ""))) or job.created_at + LONGEST_WAIT < now


def _with(hosts: Mapping[str, Mapping[str, int]], word: str) -> Sequence[str]:
    return sorted(name for name, counts in hosts.items() if counts.get(word))


def _told(blocker: Job) -> str:
    what = f"Job {blocker.id} ({blocker.job_type}"
    if who := operator_of(blocker):
        what += f": {who} runs {(blocker.intent or {}).get('playbook')} by hand"
    if blocker.status is JobStatus.RUNNING and blocker.started_at:
        return f"{what}) is at work there since {blocker.started_at:%H:%M:%S} UTC."
    return f"{what}) is in line before this."
