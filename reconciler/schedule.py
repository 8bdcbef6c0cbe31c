"""When: ticks that only insert work. Of several control planes on one database, one ticks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from reconciler.backups import expire
from reconciler.core.errors import Conflict, TrueupError
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobType
from reconciler.declaring import Actor
from reconciler.dispatch import Dispatcher
from reconciler.expiring import remove_expired
from reconciler.healing import Healing
from reconciler.identity import identity, is_dead
from reconciler.operations import Operations
from reconciler.records.jobs import NewJob
from reconciler.records.queue import Queue
from reconciler.settings import Settings
from reconciler.tools import Tools
from reconciler.watching import HealthWatch
from reconciler.worker import clean_up

log = structlog.get_logger()

SCHEDULED = Actor("trueup", "trueup@localhost")

LEASE = timedelta(seconds=20)
TICK_S = 5.0


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
        self._holder = identity("schedule")
        self._revision: str | None = None
        self._told: str | None = None
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
            (self.expiry_tick, 3600.0),
            (self.farewell_tick, 600.0),
        ):
            self._scheduler.add_job(
                self._guarded(tick), "interval", seconds=seconds, id=tick.__name__, next_run_time=self._clock()
            )
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=True)
        self._records.leases.release("schedule", self._holder)

    def look_now(self) -> None:
        """Somebody pushed: look at the store without waiting for the next poll."""
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
        remembered = self._tools.remembered(fleet)
        plan = self._tools.decide(fleet, remembered)
        enqueued = self._healing.enqueue(plan, fleet)
        unseen = [node.id for node in fleet.nodes.values() if node.slug not in remembered and not node.stalled]
        self._observe(unseen)
        if enqueued.jobs or unseen:
            log.info("desired state moved", revision=fleet.revision[:12], jobs=len(enqueued.jobs))
            self._dispatcher.wake_here()
        # A job that runs may have looked at the store before this commit: look again once it has ended.
        self._revision = None if enqueued.waiting else fleet.revision

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
            if cron is None or environment.stalled or not self._is_due(environment.id, cron, now):
                continue
            with suppress(Conflict):  # busy or paused: the next minute asks again
                self._operations.back_up(environment.id, own.scope or declared.scope, SCHEDULED)

    def _is_due(self, environment_id: UUID, cron: str, now: datetime) -> bool:
        last = next(iter(self._records.backups.of(environment_id)), None)
        # One that never had any is due at the first moment after now minus a day.
        since = last.created_at if last else now - timedelta(days=1)
        moment = CronTrigger.from_crontab(cron, timezone="UTC").get_next_fire_time(None, since + timedelta(seconds=1))
        return moment is not None and moment <= now

    def expiry_tick(self) -> None:
        """Remove backups that are kept no longer."""
        expire(self._tools)

    def farewell_tick(self) -> None:
        """Remove environments whose time is over."""
        remove_expired(self._tools.state, self._operations, SCHEDULED, self._clock())
