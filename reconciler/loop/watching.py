"""Has environments looked at in turn, and goes back from a release that became unhealthy when the former one is well.

A look by the clock is one round trip a node, beside whatever else happens there. Before anything is done about what it
found, a job looks again with the environment to itself; only what that one finds counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID

import structlog

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict
from reconciler.core.health import is_due, way_back
from reconciler.core.jobs import JobType
from reconciler.core.observed import ObservedNode
from reconciler.core.status import EnvironmentStatus
from reconciler.operations.declaring import Actor
from reconciler.operations.releases import earlier_release, ways_back
from reconciler.operations.requests import Operations
from reconciler.records.health import ReleaseHealth
from reconciler.records.jobs import OPEN, JobFilter, NewJob
from reconciler.state import State

log = structlog.get_logger()


class HealthWatch:
    """What the clock does about health: it inserts work, and declares the way back."""

    def __init__(
        self,
        state: State,
        operations: Operations,
        actor: Actor,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._state = state
        self._records = state.records
        self._operations = operations
        self._actor = actor
        self._clock = clock
        self._new_id = new_id
        self._told: dict[UUID, str] = {}

    def tick(self) -> bool:
        """Look at whose moment has come, and see to those that are unhealthy; whether there is new work."""
        fleet, known, now = self._state.fleet(), self._records.health.all(), self._clock()
        busy = {id_ for id_, row in self._records.statuses.all().items() if row.status != EnvironmentStatus.ACTIVE}
        due: dict[UUID, list[str]] = defaultdict(list)
        seen = cache(self._seen)
        for environment in fleet.environments.values():
            node = fleet.node_of(environment)
            if node is None or environment.stalled or node.stalled or environment.id in busy:
                continue
            last = known.get((environment.id, fleet.release_id(environment)))
            every = timedelta(seconds=fleet.health_interval_s(environment))
            is_now = is_due(environment.id, last.checked_at if last else None, every, now)
            if is_now and seen(node.id):
                due[node.id].append(str(environment.id))
            if last and last.health == "unhealthy" and (answer := seen(node.id)):
                self._see_to(environment, answer, last)
        self._ask(due)
        return bool(due)

    def _seen(self, node_id: UUID) -> ObservedNode | None:
        """What the node answered last; None: nothing, or it does not answer now."""
        seen = self._records.observations.latest(node_id)
        return seen.observed if seen and seen.reachable else None

    def _ask(self, due: Mapping[UUID, list[str]]) -> None:
        jobs = [
            NewJob(
                id=self._new_id(),
                job_type=JobType.HEALTH_CHECK,
                node_id=node_id,
                intent={"environments": environments},
                dedupe_key=f"health:{node_id}",
                ephemeral=True,
                max_attempts=1,
            )
            for node_id, environments in due.items()
        ]
        if jobs:
            self._records.jobs.enqueue_all(jobs, self._clock())

    def _see_to(self, environment: EnvironmentEntry, node: ObservedNode, last: ReleaseHealth) -> None:
        """Go back, look again with the environment to oneself first, or tell why it is left alone."""
        known = self._records.health.of(environment.id)
        back = way_back(environment, last.release_id, known, node, self._clock())
        if isinstance(back, str):
            self._tell(environment, back)
        elif str(back) not in ways_back(self._state, environment.id):
            self._tell(environment, f"The release that was served before it, {back}, was left as bad.")
        elif not last.alone:
            self._look_again(environment)
        else:
            self._go_back(environment, last, back)

    def _tell(self, environment: EnvironmentEntry, why: str) -> None:
        if self._told.get(environment.id) != why:
            self._told[environment.id] = why
            log.warning("unhealthy release stays", environment=environment.key, reason=why)

    def _look_again(self, environment: EnvironmentEntry) -> None:
        asked = JobFilter(
            environment_id=environment.id, job_types=frozenset({JobType.HEALTH_CHECK}), statuses=frozenset(OPEN)
        )
        if not self._records.jobs.page(asked, limit=1).jobs:
            self._operations.check_health(environment.id, self._actor)

    def _go_back(self, environment: EnvironmentEntry, last: ReleaseHealth, back: UUID) -> None:
        # Remembered first: if this process dies in between, it is left to people rather than done twice.
        self._records.health.leave(environment.id, last.release_id, back)
        why = f"Release {last.release_id} is unhealthy: {last.found.reason}"
        try:
            release, version = earlier_release(self._state, environment.id, back)
            job_id = self._operations.rollback(environment.id, release, version, self._actor, reason=why)
        except Conflict as error:
            self._records.health.leave(environment.id, last.release_id, None)
            self._tell(environment, error.message)
            return
        log.warning("going back", environment=environment.key, release=str(back), job=str(job_id), reason=why)
