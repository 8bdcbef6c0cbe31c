"""A control plane that follows a real bare repository and tells a forge on loopback; nodes answer as tests say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

from reconciler.core.jobs import JobType
from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.loop.announcing import Announcing
from reconciler.loop.following import Following
from reconciler.loop.tools import Tools
from reconciler.nodes.connection import Connections
from reconciler.records.announcements import Announcement
from reconciler.records.jobs import NewJob
from reconciler.records.outcomes import Failed
from reconciler.records.queue import Queue
from reconciler.storage.secret_store import Secrets
from tests.api.control import Clock
from tests.controlplane import Clone, run_git
from tests.core.fake_node import configured, provisioned
from tests.forges.server import TOKEN, ForgeServer
from tests.upstream.conftest import ENVIRONMENT, Followed


@dataclass
class Board:
    followed: Followed
    person: Clone
    server: ForgeServer
    clock: Clock
    tools: Tools
    announcing: Announcing

    @property
    def secrets(self) -> Secrets:
        return Secrets(self.tools.settings.secrets)

    def look(self) -> str:
        """Follow once; how it stands then."""
        return Following(self.tools.settings, self.tools.state, self.clock).look().state.value

    def take(self, commit: str) -> str:
        """Take over what was pushed, and tell of it."""
        assert self.look() == "in-step"
        self.announcing.work()
        return commit

    def change(self, old: str = "fastcgi: true", new: str = "fastcgi: false") -> str:
        """Somebody changes the environment, and it is taken over; the commit's id."""
        return self.take(self.person.replace(ENVIRONMENT, old, new))

    def platform(self, **spec: Any) -> str:
        """Push a platform document with the forge in it; the commit's id."""
        lines = ["apiVersion: trueup/v1", "kind: Platform", "spec:"]
        values = {"forge": self.server.declared(), **spec}
        # JSON is YAML, too.
        lines += [f"  {name}: {value!r}".replace("'", '"').replace("None", "null") for name, value in values.items()]
        return self.person.push({"platform.yaml": "\n".join(lines) + "\n"}, "Declare the platform")

    def observe(self, *, silent: bool = False) -> None:
        """Every node is asked. On it all is as declared, unless it is silent."""
        fleet, now, roles = self.tools.state.fleet(), self.clock(), self.tools.roles
        for node in fleet.nodes.values():
            seen: ObservedNode | Unreachable = Unreachable(since=now, reason="no route to host")
            if not silent:
                placed = fleet.environments_by_node.get(node.slug, ())
                variables = [fleet.environment_variables(one.id) for one in placed if not one.stalled]
                there = {one.id: configured(one, role_digest=roles.environment) for one in variables}
                base = provisioned(fleet.node_variables(node.id), role_digest=roles.node)
                seen = base.model_copy(update={"observed_at": now, "environments": there})
            self.tools.state.records.observations.save(node.id, seen, now)

    def fail_job(self, code: str, message: str) -> None:
        """The loop's attempt ends badly."""
        environment = self.followed.environment()
        job = NewJob(id=uuid4(), job_type=JobType.RECONCILE, environment_id=environment, max_attempts=1)
        records = self.tools.state.records
        records.jobs.enqueue(job, self.clock())
        queue = Queue(records.engine, timedelta(seconds=60))
        claimed = queue.claim("test", self.clock(), frozenset({JobType.RECONCILE}))
        assert claimed is not None
        digest = self.tools.state.fleet().environment_variables(environment).digest()
        queue.finish(claimed.job.id, claimed.fence, Failed(code, message, {"digest": digest}), self.clock())

    def pass_time(self, **passed: float) -> None:
        self.clock.ahead += timedelta(**passed)

    def settle(self) -> None:
        """So late that a forge knows what it will ever know."""
        self.pass_time(minutes=2)
        self.announcing.work()
        self.announcing.work()

    def row(self, commit: str) -> Announcement:
        (found,) = [one for one in self.tools.state.records.announcements.latest(100) if one.commit == commit]
        return found

    def restart(self) -> None:
        """As another process would: nothing is remembered but what is kept."""
        self.announcing = Announcing(self.tools, self.clock)

    def comments(self, number: int = 1) -> list[str]:
        (found,) = [one for one in self.server.requests if one.number == number]
        return [one["body"] for one in found.comments]

    def head(self) -> str:
        return run_git(self.followed.forge, "rev-parse", "main")


@contextmanager
def board_at(followed: Followed, person: Clone, server: ForgeServer) -> Iterator[Board]:
    clock = Clock()
    home = followed.home
    tools = Tools(home.settings, home.state, Connections(), clock)
    Secrets(home.settings.secrets).put("forge", {"token": TOKEN})
    board = Board(followed, person, server, clock, tools, Announcing(tools, clock))
    board.observe()
    board.take(board.platform())
    board.settle()
    board.observe()
    server.asked.clear()
    try:
        yield board
    finally:
        tools.close()
