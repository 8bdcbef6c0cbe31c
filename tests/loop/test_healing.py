"""What the loop makes of a plan, beside the jobs that were there before."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID, uuid4

from reconciler.core.actions import ConfigureEnvironment
from reconciler.core.changes import Cause, Change
from reconciler.core.plan import Plan, Step, Verdict
from reconciler.loop.healing import Healing
from reconciler.records.jobs import JobFilter
from reconciler.records.outcomes import Succeeded
from reconciler.records.queue import Queue
from tests.api.conftest import control, fresh_home
from tests.api.control import Control

__all__ = ["control", "fresh_home"]
SECOND = timedelta(seconds=1)


def _healed(control: Control, environment_id: UUID, looked_at: datetime) -> int:
    """How many jobs; where none was made of what may be outdated, the node is to be looked at again."""
    fleet = control.state.fleet()
    variables = fleet.environment_variables(environment_id)
    change = Change("apply", "complete", "unfinished", Cause.UNFINISHED)
    node = fleet.node_of(fleet.environment(environment_id))
    action = ConfigureEnvironment(node.slug, node.id, environment_id, variables)
    step = Step(action, (change,), Verdict.APPLY)
    healing = Healing(control.records, control.clock, uuid4)
    enqueued = healing.enqueue(Plan(fleet.revision, (step,)), fleet, {node.id: looked_at})
    assert enqueued.outdated == (frozenset() if enqueued.jobs else {node.id})
    return len(enqueued.jobs)


def _ended(control: Control, environment_id: UUID) -> datetime:
    """The end of the job that made the environment."""
    queue, now = Queue(control.records.engine), control.clock()
    (job,) = control.records.jobs.page(JobFilter(environment_id=environment_id)).jobs
    claimed = queue.claim_one(job.id, "worker", now, in_line=False)
    assert claimed is not None
    queue.finish(job.id, claimed.fence, Succeeded(), now)
    return now


def test_what_a_look_saw_of_a_job_at_work_is_left_to_the_next_look(control: Control) -> None:
    """A slow look meets an environment half-way; the job has ended by the time that the answer is thought about."""
    _, environment_id = control.create_site("acme")
    ended = _ended(control, environment_id)
    control.clock.ahead += 2 * SECOND
    assert _healed(control, environment_id, ended - SECOND) == 0
    assert _healed(control, environment_id, ended + SECOND) == 1


def test_an_end_in_the_future_is_of_a_clock_that_went_back(control: Control) -> None:
    _, environment_id = control.create_site("acme")
    _ended(control, environment_id)
    control.clock.ahead -= timedelta(hours=1)
    assert _healed(control, environment_id, control.clock() - SECOND) == 1
