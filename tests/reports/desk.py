"""A control plane that makes and sends reports: a real store, real records, nodes that answer as tests say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from reconciler.core.jobs import JobType
from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.dispatch import Dispatcher
from reconciler.loop.delivering import deliver
from reconciler.loop.healing import Healing
from reconciler.loop.schedule import Schedule
from reconciler.loop.tools import Tools
from reconciler.loop.worker import Worker
from reconciler.operations.declaring import Actor
from reconciler.records.deliveries import Delivery
from reconciler.records.queue import Queue
from reconciler.reports.model import Report
from reconciler.settings import Settings
from reconciler.storage.secret_store import Secrets
from tests.api.control import Control, site_documents
from tests.core.fake_node import configured, provisioned

ACTOR = Actor("ops", "ops@example.com")
NOW = datetime(2026, 11, 25, 5, 0, tzinfo=UTC)


@dataclass
class Desk:
    control: Control
    tools: Tools
    worker: Worker
    schedule: Schedule

    @property
    def secrets(self) -> Secrets:
        return Secrets(self.tools.settings.secrets)

    def declare(self, reports: dict[str, Any] | None) -> None:
        """Say in the platform document who is sent reports, and when they are made."""
        platform = {
            "apiVersion": "trueup/v1",
            "kind": "Platform",
            "spec": {"reports": reports} if reports is not None else {},
        }
        self.control.add({"platform.yaml": json.dumps(platform).encode()})
        assert self.tools.state.fleet().stalled == ()

    def pass_time(self, **passed: float) -> None:
        """The clock goes on, and every node is asked again."""
        self.control.clock.ahead += timedelta(**passed)
        self.observe()

    def observe(self, broken: str | None = None, silent: str | None = None) -> None:
        """The node is asked. ``broken``: what one of its files is now; ``silent``: why it does not answer."""
        fleet, now = self.tools.state.fleet(), self.tools.clock()
        roles = self.tools.roles
        for node in fleet.nodes.values():
            seen: ObservedNode | Unreachable = Unreachable(since=now, reason=str(silent))
            if silent is None:
                placed = [fleet.environment_variables(one.id) for one in fleet.environments.values()]
                there = {one.id: configured(one, role_digest=roles.environment) for one in placed}
                base = provisioned(fleet.node_variables(node.id), role_digest=roles.node)
                files = dict.fromkeys(base.files, broken) if broken else base.files
                seen = base.model_copy(update={"observed_at": now, "environments": there, "files": files})
            self.control.records.observations.save(node.id, seen, now)

    def ask(self) -> UUID:
        """Somebody asks for a report, and it is made; its id."""
        return self.work(self.control.operations.drift_report(ACTOR))

    def work(self, job_id: UUID) -> UUID:
        while self.worker.work_once():
            pass
        job = self.control.records.jobs.get(job_id)
        assert job.status == "succeeded", job.error_message
        return job_id

    def report(self, id_: UUID) -> Report:
        return Report.model_validate(self.control.records.reports.get(id_).report)

    def deliver(self) -> None:
        """Try once what is due."""
        deliver(self.tools, threading.Event())

    def deliveries(self, report_id: UUID) -> dict[str, Delivery]:
        """A report's, by the names of their targets."""
        return {one.name: one for one in self.control.records.deliveries.of(report_id)}

    def only(self, report_id: UUID) -> Delivery:
        (one,) = self.deliveries(report_id).values()
        return one


@contextmanager
def desk_at(control: Control) -> Iterator[Desk]:
    control.clock.stopped_at = NOW
    control.add(site_documents("acme"))
    settings = Settings(home=control.home)
    tools = Tools(settings, control.state, control.connections, control.clock)
    dispatcher, healing = Dispatcher(settings.wake_socket), Healing(control.records, control.clock, uuid4)
    queue = Queue(control.records.engine)
    # What the loop does about drift would need a node.
    kinds = frozenset({JobType.DRIFT_REPORT, JobType.REPORT_DELIVERY})
    worker = Worker(
        "test",
        tools,
        queue,
        healing,
        dispatcher,
        clock=control.clock,
        job_timeout_s=60,
        lease=timedelta(seconds=60),
        job_types=kinds,
    )
    schedule = Schedule(settings, tools, control.operations, queue, healing, dispatcher, control.clock, uuid4)
    desk = Desk(control, tools, worker, schedule)
    desk.observe()
    try:
        yield desk
    finally:
        tools.close()
