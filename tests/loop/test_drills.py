"""Which drills the clock asks for, and what the records keep of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from reconciler.core.drills import DAY, PERIODS
from reconciler.core.jobs import JobStatus
from reconciler.core.manifests import DrillEvery
from reconciler.loop.drills import ask_for_due
from reconciler.operations.aftermath import wind_up
from reconciler.operations.declaring import Actor
from reconciler.operations.drills import backup_to_drill, failed_drills, last_drills, last_full_drill
from reconciler.records.backups import Backup
from reconciler.records.jobs import Job, JobFilter, only_clears
from reconciler.records.outcomes import Failed, Stopped, Succeeded
from reconciler.records.queue import Claimed, Queue
from reconciler.serve import BY_WORKERS, LOOKS, WORK, shared_out
from tests.api.conftest import control, fresh_home
from tests.api.control import Control, node_document, site_documents
from tests.api.promotable import PLATFORM

__all__ = ["control", "fresh_home"]
CLOCK = Actor("trueup", "trueup@localhost")


def _backup(
    control: Control, environment_id: UUID, at: datetime, status: str = "completed", scope: str = "full"
) -> Backup:
    backup = Backup(
        id=uuid4(),
        environment_id=environment_id,
        backup_scope=scope,
        status=status,
        created_at=at,
        completed_at=at if status == "completed" else None,
    )
    control.records.backups.save(backup)
    return backup


def _place(control: Control) -> UUID:
    _, environment_id = control.create_site("acme")
    control.add({"platform.yaml": PLATFORM})
    control.set_status(environment_id, "active")
    return environment_id


def _far_from_its_moment(control: Control, environment_id: UUID) -> datetime:
    """Now, moved to where the environment's moment in the week is three days off: none comes by chance meanwhile."""
    week = int(PERIODS[DrillEvery.WEEKLY].total_seconds())
    wanted = control.clock() + 3 * DAY
    control.clock.ahead += timedelta(seconds=(environment_id.int - int(wanted.timestamp())) % week)
    return control.clock()


def _due(control: Control, now: datetime) -> list[UUID]:
    return ask_for_due(control.state, control.operations, CLOCK, now)


def test_without_a_completed_backup_nothing_is_drilled(control: Control) -> None:
    environment_id = _place(control)
    now = control.clock()
    _backup(control, environment_id, now - 30 * DAY, "failed")
    assert _due(control, now) == []


def test_it_is_asked_for_once_and_takes_no_slot_of_the_node(control: Control) -> None:
    environment_id = _place(control)
    now = control.clock()
    _backup(control, environment_id, now)
    assert _due(control, now) == []
    # The first day is left alone, and then its moment comes within a week, the last hour of it included.
    asked = [id_ for hours in range(8 * 24 + 1) for id_ in _due(control, now + timedelta(hours=hours))]
    assert len(set(asked)) == 1, "what waits stands for all that are due"
    job = control.records.jobs.get(asked[0])
    assert (job.job_type, job.status, job.environment_id) == ("drill", JobStatus.QUEUED, environment_id)
    assert [lock.resource.partition(":")[0] for lock in job.locks] == ["drill", "site"]


def test_what_passed_waits_for_a_newer_backup_and_what_failed_for_the_next_time(control: Control) -> None:
    environment_id = _place(control)
    now = control.clock()
    first = _backup(control, environment_id, now - 40 * DAY)
    backups = control.records.backups
    backups.drilled(first.id, now - 20 * DAY, None)
    assert _due(control, now) == []
    assert last_drills(control.records, control.clock())[environment_id].passed
    backups.drilled(first.id, now - 20 * DAY, "wp_orders is missing.")
    assert [one["error"] for one in failed_drills(control.state, control.clock())] == ["wp_orders is missing."]
    assert _due(control, now) != []


def test_one_that_was_cancelled_comes_again_an_hour_later(control: Control) -> None:
    environment_id = _place(control)
    now = _far_from_its_moment(control, environment_id)
    backup = _backup(control, environment_id, now - 40 * DAY)
    control.records.backups.drilled(backup.id, now - 20 * DAY, "wp_orders is missing.")
    (asked,) = _due(control, now)
    control.operations.cancel(asked, CLOCK)
    ended = control.records.jobs.get(asked).finished_at
    assert ended is not None
    assert _due(control, ended + timedelta(minutes=59)) == []
    (again,) = _due(control, ended + timedelta(minutes=60))
    control.records.jobs.reject(again, "DRILL_NO_ROOM", "The disk is full.", ended)
    assert _due(control, ended + timedelta(hours=2)) == [], "it was asked for in this period"


def test_a_deploy_and_what_the_loop_asks_for_go_before_a_drill(control: Control) -> None:
    control.add({"platform.yaml": PLATFORM, **site_documents("acme")})
    (environment_id,) = control.state.fleet().environments
    _backup(control, environment_id, control.clock())
    queue = Queue(control.records.engine)
    for ask in (
        lambda: control.operations.deploy(environment_id, "git", "https://git.example.com/x.git", CLOCK),
        lambda: control.operations.check_health(environment_id, CLOCK),
    ):
        control.operations.drill(environment_id, CLOCK)
        held = queue.claim("driller", control.clock(), {"drill"})
        assert held is not None
        assert not queue.heartbeat(held.job.id, held.fence, control.clock())
        asked = ask()
        assert queue.claim("worker-1", control.clock(), WORK | LOOKS) is None
        assert queue.heartbeat(held.job.id, held.fence, control.clock())
        assert queue.finish(held.job.id, held.fence, Stopped(), control.clock()).status is JobStatus.CANCELLED
        claimed = queue.claim("worker-1", control.clock(), WORK | LOOKS)
        assert claimed is not None
        assert claimed.job.id == asked
        queue.finish(asked, claimed.fence, Succeeded(), control.clock())


def _begun(control: Control) -> tuple[UUID, Queue, Claimed]:
    """A site with a backup, whose drill runs."""
    control.add({"platform.yaml": PLATFORM, **site_documents("acme")})
    (environment_id,) = control.state.fleet().environments
    _backup(control, environment_id, control.clock() - 40 * DAY)
    control.operations.drill(environment_id, CLOCK)
    queue = Queue(control.records.engine)
    held = queue.claim("driller", control.clock(), {"drill"})
    assert held is not None
    return environment_id, queue, held


def _clearing(control: Control) -> list[Job]:
    found = control.records.jobs.page(JobFilter(job_types=frozenset({"drill"}))).jobs
    return [job for job in found if only_clears(job)]


@pytest.mark.parametrize("outcome", [Stopped(), Failed("JOB_TIMEOUT", "It took too long."), Failed("X", "no host")])
def test_what_a_drill_that_was_stopped_may_have_left_is_cleared_away(
    control: Control, outcome: Stopped | Failed
) -> None:
    _, queue, held = _begun(control)
    if isinstance(outcome, Stopped):
        control.operations.cancel(held.job.id, CLOCK)
    ended = queue.finish(held.job.id, held.fence, outcome, control.clock())
    # A worker that is killed here leaves it to the clock.
    control.clock.ahead += timedelta(seconds=30)
    for _ in range(2):
        control.operations.declarations.settle()
        wind_up(ended, control.state, control.clock())
    if outcome == Failed("X", "no host"):
        assert _clearing(control) == []
        return
    (job,) = _clearing(control)
    assert (job.environment_id, job.locks) == (held.job.environment_id, held.job.locks)
    claimed = queue.claim("driller", control.clock(), {"drill"})
    assert claimed is not None
    assert claimed.job.id == job.id
    # It is no drill: nothing has it stop, nothing follows from it, and the clock asks for one as before.
    deploy = control.operations.deploy(ended.environment_id or uuid4(), "git", "https://git.example.com/x.git", CLOCK)
    assert queue.claim("worker-1", control.clock(), WORK) is None
    assert not queue.heartbeat(job.id, claimed.fence, control.clock())
    late = queue.finish(job.id, claimed.fence, Failed("JOB_TIMEOUT", "It took too long."), control.clock())
    wind_up(late, control.state, control.clock())
    assert _clearing(control) == [late]
    assert control.records.jobs.get(deploy).status is JobStatus.QUEUED


@pytest.mark.parametrize("cut_off", [True, False])
def test_what_an_attempt_left_that_was_cut_off_goes_however_the_next_one_ends(control: Control, cut_off: bool) -> None:
    """The next one may fail before it comes to the node: the backup's manifest is gone by then."""
    _, queue, held = _begun(control)
    if cut_off:
        queue.release(held.job.id, held.fence, control.clock())
        control.clock.ahead += timedelta(seconds=30)
        again = queue.claim("driller", control.clock(), {"drill"})
        assert again is not None
        held = again
    assert held.job.attempt_count == 1
    ended = queue.finish(held.job.id, held.fence, Failed("BACKUP_DAMAGED", "It is gone."), control.clock())
    wind_up(ended, control.state, control.clock())
    assert len(_clearing(control)) == cut_off


def test_the_clock_takes_no_clearing_for_a_drill(control: Control) -> None:
    environment_id, queue, held = _begun(control)
    control.operations.cancel(held.job.id, CLOCK)
    wind_up(queue.finish(held.job.id, held.fence, Stopped(), control.clock()), control.state, control.clock())
    clearing = queue.claim("driller", control.clock(), {"drill"})
    assert clearing is not None
    queue.finish(clearing.job.id, clearing.fence, Succeeded({"cleared": True}), control.clock())
    later = control.clock() + timedelta(hours=1)
    asked = [id_ for hours in range(8 * 24) for id_ in _due(control, later + timedelta(hours=hours))]
    assert len(set(asked)) == 1
    assert last_drills(control.records, control.clock()) == {}
    assert control.records.jobs.get(asked[0]).environment_id == environment_id


def test_one_that_ran_out_of_time_is_told_and_its_backup_is_none_the_worse(control: Control) -> None:
    environment_id, queue, held = _begun(control)
    (backup,) = control.records.backups.of(environment_id)
    failed = Failed("JOB_TIMEOUT", "It took too long.", {"backup_id": str(backup.id)})
    queue.finish(held.job.id, held.fence, failed, control.clock())
    (told,) = failed_drills(control.state, control.clock())
    assert told["backup"] == str(backup.id)
    assert told["error"].startswith("It ran out of time")
    assert 'trueup_environments_drill{drill="failed"} 1.0' in control.session().get("/metrics").text
    assert control.records.backups.get(backup.id) == backup
    control.records.backups.drilled(backup.id, control.clock(), None)
    assert failed_drills(control.state, control.clock()) == []
    assert 'trueup_environments_drill{drill="passed"} 1.0' in control.session().get("/metrics").text


def test_a_drill_changes_nothing_else_of_its_backup(control: Control) -> None:
    environment_id = _place(control)
    backup = _backup(control, environment_id, control.clock())
    control.records.backups.save(replace(backup, status="expired"))
    control.records.backups.drilled(backup.id, control.clock(), None)
    assert control.records.backups.get(backup.id).status == "expired"


def test_a_platform_without_storage_has_none(control: Control) -> None:
    _, environment_id = control.create_site("acme")
    _backup(control, environment_id, control.clock() - 40 * DAY)
    assert _due(control, control.clock()) == []


def test_drills_of_all_nodes_keep_no_worker_from_a_deploy(control: Control) -> None:
    control.add({"platform.yaml": PLATFORM, "nodes/web-2.yaml": node_document("192.0.2.2")})
    control.add({**site_documents("one"), **site_documents("two", "web-2"), **site_documents("three")})
    at = {one.site: one.id for one in control.state.fleet().environments.values()}
    for slug in ("one", "two"):
        _backup(control, at[slug], control.clock())
        control.operations.drill(at[slug], CLOCK)
    deploy = control.operations.deploy(at["three"], "git", "https://git.example.com/x.git", CLOCK)
    queue, plan = Queue(control.records.engine), shared_out(2)
    claimed = {name: queue.claim(name, control.clock(), types) for name, types in plan.items()}
    done = {name: one.job.id for name, one in claimed.items() if one and name.startswith("worker")}
    assert set(done.values()) == {deploy}
    driller = claimed["driller"]
    assert driller is not None
    assert driller.job.job_type == "drill"
    assert set().union(*plan.values()) == BY_WORKERS
    assert shared_out(0) == {}


GATED = PLATFORM.replace(b"bucket: backups", b"bucket: backups, drill: {required_for_promotion: true}")


def test_where_a_promotion_asks_for_it_the_newest_full_backup_is_drilled(control: Control) -> None:
    control.add({"platform.yaml": PLATFORM, **site_documents("acme")})
    (environment,) = control.state.fleet().environments.values()
    now = control.clock()

    def chosen() -> Backup | None:
        fleet = control.state.fleet()
        return backup_to_drill(fleet.environments[environment.id], fleet, control.records, now)

    part = _backup(control, environment.id, now - 50 * DAY, scope="db")
    assert chosen() == part
    full = _backup(control, environment.id, now - 40 * DAY)
    newest = _backup(control, environment.id, now - DAY, scope="db")
    assert chosen() == newest
    control.push("platform.yaml", "bucket: backups", "bucket: backups, drill: {required_for_promotion: true}")
    assert chosen() == full
    assert last_full_drill(control.records, environment.id, now) is None
    control.records.backups.drilled(full.id, now - 20 * DAY, None)
    drilled = last_full_drill(control.records, environment.id, now)
    assert drilled is not None
    assert drilled.passed
    # It has to be recent, too: what passed once is tried again although nobody made a newer one.
    assert _due(control, now) != []


def test_only_a_part_is_drilled_where_there_is_nothing_else(control: Control) -> None:
    control.add({"platform.yaml": GATED, **site_documents("acme")})
    (environment,) = control.state.fleet().environments.values()
    now = control.clock()
    part = _backup(control, environment.id, now, scope="db")
    assert backup_to_drill(environment, control.state.fleet(), control.records, now) == part


def test_what_a_clock_wrote_that_was_ahead_counts_as_none(control: Control) -> None:
    control.add({"platform.yaml": GATED, **site_documents("acme")})
    (environment,) = control.state.fleet().environments.values()
    backups, now = control.records.backups, control.clock()
    ahead, old = _backup(control, environment.id, now - 40 * DAY), _backup(control, environment.id, now - 30 * DAY)
    control.clock.ahead = 90 * DAY
    asked = control.operations.drill(environment.id, CLOCK)
    control.records.jobs.reject(asked, "X", "It was not to be.", control.clock())
    backups.drilled(ahead.id, control.clock(), None)
    control.clock.ahead = timedelta()
    assert last_drills(control.records, control.clock()) == {}
    assert last_full_drill(control.records, environment.id, control.clock()) is None
    due = [id_ for days in range(9) for id_ in _due(control, control.clock() + days * DAY)]
    assert due != []
    backups.drilled(old.id, control.clock(), "wp_orders is missing.")
    assert [one["backup"] for one in failed_drills(control.state, control.clock())] == [str(old.id)]
    last = last_full_drill(control.records, environment.id, control.clock())
    assert last is not None
    assert not last.passed
