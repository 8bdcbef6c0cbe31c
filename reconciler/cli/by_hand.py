"""``trueup operator-run``: what Ansible's callback starts beside a playbook that is run by hand.

It takes the locks, says so in a line of JSON on standard output, and keeps them until it is told on standard input
how the playbook ended, or until that is closed because the playbook's process is gone.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer

from reconciler.cli.context import actor, opened, settings, tools_of
from reconciler.cli.output import say
from reconciler.core.errors import Invalid, LateFence, RecordsError
from reconciler.home import Home, clock
from reconciler.operations.by_hand import Asked, OperatorRuns, forget_abandoned
from reconciler.records.jobs import Job
from reconciler.records.queue import Claimed, Queue
from reconciler.settings import Settings

POLL_S = 0.25
REFUSED = 75
"""The exit status of a run that did not get its locks (EX_TEMPFAIL)."""


def register(app: typer.Typer) -> None:
    app.command("operator-run", hidden=True)(operator_run)


def operator_run(
    playbook: Annotated[str, typer.Option(help="The playbook's name.")],
    environment: Annotated[UUID | None, typer.Option(help="Id of the environment that it is about.")] = None,
    node: Annotated[list[UUID] | None, typer.Option(help="Id of a node that it is about; may be given again.")] = None,
    wait_s: Annotated[float, typer.Option(min=0, max=3000, help="How long to wait for the locks.")] = 60.0,
    locks: Annotated[bool, typer.Option(help="Take the locks; without, the run is only recorded.")] = True,
) -> None:
    """Hold the locks of a playbook that is run by hand, and record it as a job."""
    _refuse_unkept(settings())
    with opened() as home:
        queue = Queue(home.records.engine, home.settings.lease)
        runs = OperatorRuns(home.state, queue, home.dispatcher, clock, uuid4)
        forget_abandoned(home.records, clock())
        job = runs.ask(Asked(playbook, actor(), environment, tuple(node or ())), locked=locks)
        claimed = _claim(home, runs, queue, job, wait_s)
        if claimed is None:
            _say({"state": "refused", "message": runs.give_up(job)})
            raise typer.Exit(REFUSED)
        _say({"state": "held", "job": str(job.id)})
        _end(runs, claimed, _hold(home, queue, claimed))


def _refuse_unkept(where: Settings) -> None:
    """A directory with a store alone is what is left of a control plane, or a copy for working without one."""
    if where.database_url is None and not (where.home / "trueup.db").exists():
        raise Invalid(f"{where.home} has no records. Run `trueup init` if a control plane is to be there.")


def _claim(home: Home, runs: OperatorRuns, queue: Queue, job: Job, wait_s: float) -> Claimed | None:
    """The run with its locks, within the time that there is."""
    deadline, cleaned = time.monotonic() + wait_s, False
    while True:
        # Where nobody serves, nobody takes what is in line either.
        served = home.dispatcher.is_heard()
        if claimed := runs.begin(job, in_line=served):
            return claimed
        if time.monotonic() > deadline or _readable(POLL_S):
            return None
        if not served and not cleaned:
            _clean_up(home, queue)
            cleaned = True


def _clean_up(home: Home, queue: Queue) -> None:
    """Give back the locks of workers that were killed."""
    from reconciler.identity import is_dead
    from reconciler.loop.worker import clean_up

    with tools_of(home) as tools:
        clean_up(queue.reclaim(is_dead, clock()), tools)


def _hold(home: Home, queue: Queue, claimed: Claimed) -> dict[str, Any] | None:
    """Keep the lease until the playbook has ended; what Ansible counted on each host, None where it didn't say."""
    beat_s = home.settings.lease.total_seconds() / 3
    while not _readable(beat_s):
        try:
            queue.heartbeat(claimed.job.id, claimed.fence, clock())
        except RecordsError as error:
            say(error.message, err=True)  # the callback reads it
        except LateFence:
            break
    line = sys.stdin.readline()
    try:
        hosts = json.loads(line)["hosts"]
    except (ValueError, KeyError, TypeError):
        return None
    return hosts if isinstance(hosts, dict) else None


def _end(runs: OperatorRuns, claimed: Claimed, hosts: dict[str, Any] | None) -> None:
    try:
        job = runs.end(claimed, hosts)
    except LateFence as late:
        _say({"state": "lost", "message": f"The locks were lost on the way. {late.message}"})
        raise typer.Exit(1) from late
    _say({"state": "ended", "status": job.status.value})


def _readable(timeout_s: float) -> bool:
    """Whether standard input has something to say, its end included."""
    return bool(select.select([sys.stdin], [], [], timeout_s)[0])


def _say(told: dict[str, Any]) -> None:
    os.write(sys.stdout.fileno(), json.dumps(told).encode() + b"\n")
