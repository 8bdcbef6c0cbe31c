"""Claims a job, does it under its locks, and finishes it once. Any number of workers, in any number of processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from reconciler.core.errors import ArtifactError, JobError, LateFence, RecordsError, StoreError
from reconciler.core.holds import asked_for
from reconciler.core.jobs import JobErrorCode, JobType
from reconciler.core.observed import Unreachable
from reconciler.dispatch import Dispatcher
from reconciler.identity import identity
from reconciler.loop import delivering, drills, health, reconcile, removing, reporting, resetting
from reconciler.loop.healing import Healing
from reconciler.loop.tools import Run, Tools
from reconciler.operations.aftermath import is_deliberate, mark, wind_up
from reconciler.records.jobs import Job, only_clears
from reconciler.records.outcomes import Failed, Outcome, Stopped, Succeeded
from reconciler.records.queue import Claimed, Lost, Queue

log = structlog.get_logger()


class Worker:
    """One thread's worth of work."""

    def __init__(
        self,
        name: str,
        tools: Tools,
        queue: Queue,
        healing: Healing,
        dispatcher: Dispatcher,
        *,
        clock: Callable[[], datetime],
        job_timeout_s: float,
        lease: timedelta,
        job_types: frozenset[JobType],
    ) -> None:
        self.identity = identity(name)
        self._tools = tools
        self._queue = queue
        self._healing = healing
        self._dispatcher = dispatcher
        self._clock = clock
        self._job_timeout_s = job_timeout_s
        self._job_types = job_types
        self._beat_s = lease.total_seconds() / 3
        self._stopping = threading.Event()

    def run(self) -> None:
        """Work until ``stop``."""
        while not self._stopping.is_set():
            seen = self._dispatcher.seen()
            try:
                worked = self.work_once()
            except RecordsError as error:
                # Without the database there is no work; it may come back.
                log.error("worker cannot reach the records", error=error.message)
                worked = False
            if not worked:
                self._dispatcher.wait(seen)

    def stop(self) -> None:
        """Take no further job. One that runs is stopped, also on the node, and goes back to the queue unharmed."""
        self._stopping.set()
        self._dispatcher.wake_here()

    def work_once(self) -> bool:
        """Do one job if there is one."""
        claimed = self._queue.claim(self.identity, self._clock(), self._job_types)
        if claimed is None:
            return False
        try:
            self._work(claimed)
        except LateFence as late:
            log.warning("job went to another worker", job=str(claimed.job.id), error=late.message)
        return True

    def _work(self, claimed: Claimed) -> None:
        job = claimed.job
        if job.attempt_count > 1:
            self._tools.stop(job.id, job.node_id)
        mark(job, self._tools.state, self._clock())
        say = log.debug if job.ephemeral else log.info
        say("job started", job=str(job.id), job_type=job.job_type, attempt=job.attempt_count)
        with self._heartbeat(claimed) as cancel:
            run = Run(
                job.id,
                claimed.fence,
                self._job_timeout_s,
                cancel,
                deliberate=is_deliberate(job),
                decisive=_decisive(job),
                asked=asked_for(job.job_type, job.intent or {}),
                backs_up=job.job_type == JobType.DRIFT_DISCARD,
                confirmed=_confirmed(job),
            )
            outcome = self._attempt(claimed, run)
        finished = self._end(claimed, outcome)
        try:
            wind_up(finished, self._tools.state, self._clock())
        except StoreError as error:
            # The job has ended all the same; a tick finishes what follows from it once the store is back.
            log.error("aftermath waits for the store", job=str(job.id), error=error.message)
        say("job ended", job=str(job.id), job_type=job.job_type, status=finished.status, error=finished.error_code)
        self._dispatcher.wake_here()

    def _end(self, claimed: Claimed, outcome: Outcome) -> Job:
        if isinstance(outcome, Stopped) and self._stopping.is_set():
            return self._queue.release(claimed.job.id, claimed.fence, self._clock())
        return self._queue.finish(claimed.job.id, claimed.fence, outcome, self._clock())

    def _attempt(self, claimed: Claimed, run: Run) -> Outcome:
        """The boundary: whatever goes wrong in here is the job's failure, recorded, and not the worker's end."""
        try:
            return self._do(claimed, run)
        except ArtifactError as error:
            return Failed(JobErrorCode.ARTIFACT_UNAVAILABLE, error.message)
        except JobError as error:
            # What was told to stop did not fail.
            return Stopped() if run.cancel.is_set() else Failed(error.job_code, error.message)
        except Exception as error:
            log.exception("job failed unexpectedly", job=str(claimed.job.id))
            kind = type(error).__name__
            message = f"Trueup itself failed: {kind}: {error}. Nothing more was done. See the log, and report it."
            return Failed(JobErrorCode.JOB_INTERNAL_ERROR, message)

    def _do(self, claimed: Claimed, run: Run) -> Outcome:  # noqa: PLR0911, PLR0912 (one a kind of job)
        job = claimed.job
        match JobType(job.job_type), job.environment_id, job.node_id:
            case JobType.NODE_OBSERVE, _, UUID() as node_id:
                return self._observe(node_id)
            case JobType.NODE_PROVISION, _, UUID() as node_id:
                return reconcile.reconcile_node(node_id, self._tools, run)
            case JobType.DRIFT_CHECK, UUID() as environment_id, _:
                return reconcile.check_drift(environment_id, self._tools, run)
            case JobType.SEARCH, UUID() as environment_id, _:
                return reconcile.search(environment_id, job.intent or {}, self._tools, run)
            case JobType.BACKUP, UUID() as environment_id, _:
                return reconcile.back_up(environment_id, job.intent or {}, self._tools, run)
            case JobType.DRILL, UUID() as environment_id, _ if only_clears(job):
                return drills.clear(environment_id, self._tools, run)
            case JobType.DRILL, UUID() as environment_id, _:
                return drills.drill(environment_id, self._tools, run)
            case ((JobType.ENVIRONMENT_REMOVE | JobType.SITE_REMOVE), _, _):
                return removing.remove(job, self._tools, run)
            case JobType.HEALTH_CHECK, _, _ if (job.intent or {}).get("reset"):
                return resetting.reset(job, self._tools, run)
            case JobType.HEALTH_CHECK, UUID() as environment_id, _:
                return reconcile.check_health(environment_id, self._tools, run)
            case JobType.HEALTH_CHECK, None, UUID() as node_id:
                return health.watch(node_id, (job.intent or {})["environments"], self._tools)
            case JobType.CACHE_PURGE, UUID() as environment_id, _:
                return reconcile.purge_cache(environment_id, self._tools, run)
            case JobType.DRIFT_REPORT, _, _:
                return reporting.make_report(job, self._tools)
            case JobType.REPORT_DELIVERY, _, _:
                return delivering.deliver(self._tools, run.cancel)
            case JobType.RECONCILE, UUID() as environment_id, _ if (job.intent or {}).get("after"):
                return reconcile.put_right(environment_id, self._tools, run)
            case _, UUID() as environment_id, _:
                return reconcile.reconcile_environment(environment_id, self._tools, run)
        return Failed(JobErrorCode.TARGET_MISSING, f"Job type {job.job_type} names no target. Nothing was done.")

    def _observe(self, node_id: UUID) -> Outcome:
        """Look at a node and have the loop heal what may be healed."""
        fleet = self._tools.state.fleet()
        node = fleet.nodes.get(node_id)
        if node is None or node.stalled:
            return Succeeded()
        records = self._tools.state.records
        before, looked_at = records.observations.latest(node_id), self._clock()
        answers = self._tools.observe([node])
        answer = answers[node.slug]
        if isinstance(answer, Unreachable):
            log.warning("node unreachable", node=node.slug)
            return Succeeded({"unreachable": True})
        for told, reason in answer.unusable.items():
            log.warning("what a node says of an environment is set aside", node=node.slug, about=told, reason=reason)
        if before is not None and not before.reachable:
            log.info("node is back", node=node.slug)
            records.jobs.hurry(node_id, JobErrorCode.ANSIBLE_HOST_UNREACHABLE, self._clock())
        healed = self._healing.enqueue(self._tools.decide(fleet, answers), fleet, {node_id: looked_at}).jobs
        if healed:
            log.info("drift found", node=node.slug, jobs=[str(id_) for id_ in healed])
        self._dispatcher.wake_here()
        return Succeeded({"healing": [str(id_) for id_ in healed]})

    @contextmanager
    def _heartbeat(self, claimed: Claimed) -> Iterator[threading.Event]:
        """Keeps the lease; the event is set when the job is to stop: cancelled, or lost to another worker."""
        cancel, done = threading.Event(), threading.Event()
        thread = threading.Thread(target=self._beat, args=(claimed, cancel, done), daemon=True)
        thread.start()
        try:
            yield cancel
        finally:
            done.set()
            thread.join()

    def _beat(self, claimed: Claimed, cancel: threading.Event, done: threading.Event) -> None:
        while not done.wait(min(self._beat_s, 1.0)):
            if self._stopping.is_set():
                cancel.set()
            try:
                if self._queue.heartbeat(claimed.job.id, claimed.fence, self._clock()):
                    cancel.set()
            except LateFence:
                cancel.set()
                return
            except RecordsError as error:
                log.error("heartbeat failed", job=str(claimed.job.id), error=error.message)


def _decisive(job: Job) -> frozenset[str] | None:
    """The names whose certificates decide how the job ends: a deploy is none the worse for a domain that has none."""
    if job.job_type == JobType.DOMAIN_ADD:
        return frozenset({str((job.intent or {}).get("hostname"))})
    return None if job.job_type == JobType.RECONCILE else frozenset()


def _confirmed(job: Job) -> UUID | None:
    said = (job.intent or {}).get("confirmed")
    return UUID(said) if said else None


def clean_up(lost: list[Lost], tools: Tools) -> None:
    """Stop what the workers that lost these jobs left running, here and on the nodes."""
    for one in lost:
        log.warning("job lost its worker", job=str(one.job.id), worker=one.locked_by, status=one.job.status)
        tools.stop(one.job.id, one.job.node_id)
        wind_up(one.job, tools.state, tools.clock())
