"""When: ticks that only insert work. Of several control planes on one database, one ticks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from reconciler.core.cron import next_due
from reconciler.core.errors import Conflict, TrueupError
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobType
from reconciler.core.plan import Plan
from reconciler.dispatch import Dispatcher
from reconciler.identity import identity, is_dead
from reconciler.loop.announcing import Announcing
from reconciler.loop.backups import expire, is_due
from reconciler.loop.delivering import work_there_is
from reconciler.loop.drills import ask_for_due
from reconciler.loop.expiring import remove_expired
from reconciler.loop.following import Following
from reconciler.loop.healing import Healing
from reconciler.loop.tools import Tools
from reconciler.loop.undeclaring import remove_confirmed
from reconciler.loop.watching import HealthWatch
from reconciler.loop.wildcard import WildcardKeeper
from reconciler.loop.worker import clean_up
from reconciler.operations.by_hand import forget_abandoned
from reconciler.operations.declaring import Actor
from reconciler.operations.requests import SCHEDULED_REPORT, Operations
from reconciler.records.jobs import JobFilter, NewJob
from reconciler.records.queue import Queue
from reconciler.settings import Settings

log = structlog.get_logger()

SCHEDULED = Actor("trueup", "trueup@localhost")

LEASE = timedelta(seconds=20)
TICK_S = 5.0
PLATFORM = "platform.yaml"


class Schedule:
    """Ticks for one serving process."""

    def __init__(
        self,
        settings: Settings,
        tools: Tools,
        operations: Operations,
        queue: Queue,
        healing: Healing,
        dispatcher: Dispatcher,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._settings = settings
        self._tools = tools
        self._operations = operations
        self._queue = queue
        self._healing = healing
        self._dispatcher = dispatcher
        self._clock = clock
        self._new_id = new_id
        self._records = tools.state.records
        self._health = HealthWatch(tools.state, operations, SCHEDULED, clock, new_id)
        self._wildcard = WildcardKeeper(tools, clock)
        self._holder = identity("schedule")
        self._revision: str | None = None
        self._told: str | None = None
        self._following = Following(settings, tools.state, clock) if settings.upstream else None
        self._announcing = Announcing(tools, clock) if settings.upstream else None
        self._began = clock()
        # One thread: ticks never overlap, so neither do two looks at the same revision.
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )

    def start(self) -> None:
        for tick, seconds in (
            (self.store_tick, self._settings.store_poll_s),
            (self.observe_tick, self._settings.observe_interval_s),
            (self.lease_tick, TICK_S),
            (self.health_tick, TICK_S),
            (self.retention_tick, 3600.0),
            (self.packing_tick, 600.0),
            (self.backup_tick, 60.0),
            (self.drill_tick, 300.0),
            (self.expiry_tick, 3600.0),
            (self.farewell_tick, 600.0),
            (self.wildcard_tick, TICK_S),
            (self.report_tick, 30.0),
            (self.delivery_tick, TICK_S),
        ):
            self._scheduler.add_job(
                self._guarded(tick), "interval", seconds=seconds, id=tick.__name__, next_run_time=self._clock()
            )
        self._scheduler.start()
        if self._following:
            self._following.start(self._leads, self.look_now)
        if self._announcing:
            self._announcing.start(self._leads)

    def stop(self) -> None:
        if self._following:
            self._following.stop()
        if self._announcing:
            self._announcing.stop()
        self._scheduler.shutdown(wait=True)
        self._wildcard.stop()
        self._records.leases.release("schedule", self._holder)

    def wake(self) -> None:
        """Something was pushed or committed here, or a forge asks for a look."""
        self.look_now()
        if self._following:
            self._following.wake()

    def look_now(self) -> None:
        """The store moved: look at it without waiting for the next poll."""
        if self._announcing:
            self._announcing.wake()
        self._scheduler.modify_job("store_tick", next_run_time=self._clock())

    def _guarded(self, tick: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                if self._leads():
                    tick()
            except TrueupError as error:
                # The next tick comes anyway; a full disk or a lost database must not end the ticking.
                log.error("tick failed", tick=tick.__name__, error=error.message)

        return run

    def _leads(self) -> bool:
        leases, now = self._records.leases, self._clock()
        holder = leases.holder("schedule", now)
        if holder is not None and is_dead(holder):
            # A killed process must not keep the loop still until its lease runs out.
            leases.release("schedule", holder)
        return leases.acquire("schedule", self._holder, now, LEASE)

    def store_tick(self) -> None:
        """Where desired state moved: a job for each target that differs from what was last observed."""
        fleet = self._tools.state.fleet()
        if fleet.revision == self._revision:
            return
        self._tell(fleet)
        observations = self._records.observations.all()
        remembered = self._tools.remembered(fleet, observations)
        plan = self._tools.decide(fleet, remembered)
        # The plan and the times of its looks are of one reading: a newer look's time would excuse an older answer.
        looked_at = {id_: one.checked_at for id_, one in observations.items()}
        enqueued = self._healing.enqueue(plan, fleet, looked_at)
        self._remove_undeclared(plan)
        unseen = [node.id for node in fleet.nodes.values() if node.slug not in remembered and not node.stalled]
        self._observe({*unseen, *enqueued.outdated})
        if enqueued.jobs or unseen:
            log.info("desired state moved", revision=fleet.revision[:12], jobs=len(enqueued.jobs))
        if enqueued.jobs or unseen or enqueued.outdated:
            self._dispatcher.wake_here()
        # A job that runs may have looked at the store before this commit: look again once it has ended.
        self._revision = None if enqueued.waiting or enqueued.outdated else fleet.revision

    def _tell(self, fleet: Fleet) -> None:
        """Each revision once, with what is wrong in it."""
        if fleet.revision == self._told:
            return
        self._told = fleet.revision
        log.info("store read", revision=fleet.revision[:12])
        for stalled in fleet.stalled:
            log.warning("document stalled", document=str(stalled))

    def observe_tick(self) -> None:
        """A look at every node in use."""
        fleet = self._tools.state.fleet()
        self._observe(
            node.id for node in fleet.nodes.values() if not node.stalled and node.manifest.spec.state == "active"
        )
        self._dispatcher.wake_here()

    def _observe(self, node_ids: Iterable[UUID]) -> None:
        jobs = [
            NewJob(
                id=self._new_id(),
                job_type=JobType.NODE_OBSERVE,
                node_id=node_id,
                dedupe_key=f"observe:{node_id}",
                ephemeral=True,
                max_attempts=1,
            )
            for node_id in node_ids
        ]
        if jobs:
            self._records.jobs.enqueue_all(jobs, self._clock())

    def lease_tick(self) -> None:
        """Work of vanished workers is stopped and queued again; interrupted declarations are finished."""
        clean_up(self._queue.expire(self._clock()), self._tools)
        forget_abandoned(self._records, self._clock())
        self._operations.declarations.recover()
        self._operations.declarations.settle()

    def health_tick(self) -> None:
        """A look at each environment whose moment has come, and what follows from the last ones."""
        if self._health.tick():
            self._dispatcher.wake_here()

    def retention_tick(self) -> None:
        """Forget what is older than it is kept."""
        now = self._clock()
        before = now - timedelta(days=self._settings.job_retention_days)
        self._records.jobs.prune(before)
        self._records.drift_checks.prune(before)
        self._records.health.prune(before)
        self._records.reports.prune(before)
        self._records.node_logins.prune(before)
        self._records.audit.prune(now - timedelta(days=self._settings.audit_retention_days))
        self._records.sessions.prune(now)
        self._records.idempotency.prune(now)

    def packing_tick(self) -> None:
        """Pack the store where there is enough to pack."""
        self._tools.state.repository.maintain()

    def backup_tick(self) -> None:
        """A backup for each environment whose time came since its last one."""
        fleet, now = self._tools.state.fleet(), self._clock()
        declared = fleet.platform.spec.backups
        if declared is None:
            return
        for environment in fleet.environments.values():
            own = environment.manifest.spec.backups
            cron = own.schedule or declared.schedule
            if cron is None or environment.stalled:
                continue
            if not is_due(environment.id, cron, self._records.backups, now):
                continue
            with suppress(Conflict):  # busy or paused: the next minute asks again
                self._operations.back_up(environment.id, own.scope or declared.scope, SCHEDULED)

    def drill_tick(self) -> None:
        """A drill for each environment whose newest backup is to be tried by now."""
        if ask_for_due(self._tools.state, self._operations, SCHEDULED, self._clock()):
            self._dispatcher.wake_here()

    def expiry_tick(self) -> None:
        """Remove backups that are kept no longer."""
        expire(self._tools)

    def farewell_tick(self) -> None:
        """Remove environments whose time is over, and those that nodes still have although they are to go."""
        remove_expired(self._tools.state, self._operations, SCHEDULED, self._clock())
        fleet = self._tools.state.fleet()
        self._remove_undeclared(self._tools.decide(fleet, self._tools.remembered(fleet)))

    def _remove_undeclared(self, plan: Plan) -> None:
        remove_confirmed(plan.orphans, self._tools.state, self._operations, SCHEDULED, self._clock())

    def wildcard_tick(self) -> None:
        """Look after the certificate of preview URLs, beside the ticks: a name server may take its time."""
        self._wildcard.begin()

    def report_tick(self) -> None:
        """A drift report, where its time came since the last one that the clock asked for."""
        cron = self._tools.state.fleet().platform.spec.reports.schedule
        now = self._clock()
        moment = next_due(cron, self._reported(now)) if cron else None
        if moment is not None and moment <= now:
            self._operations.drift_report(SCHEDULED, scheduled=True)

    def _reported(self, now: datetime) -> datetime:
        """When the clock last asked for a report, however that ended; at first, when it was told to."""
        jobs = self._records.jobs.page(JobFilter(dedupe_key=SCHEDULED_REPORT, created_until=now), limit=1).jobs
        known = [job.created_at for job in jobs]
        if last := self._records.reports.last_scheduled(now):
            known.append(last)
        if known:
            return max(known)
        declared = self._tools.state.current().history(PLATFORM)
        return max(self._began, declared.updated_at) if declared else self._began

    def delivery_tick(self) -> None:
        """Send what is to be sent of reports."""
        if work_there_is(self._records, self._clock(), self._new_id):
            self._dispatcher.wake_here()
