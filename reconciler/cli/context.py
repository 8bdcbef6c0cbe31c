"""What commands work with: the opened home, who is asking, targets by name, and waiting for a job.

What reaches nodes is imported where it is used: most commands don't, and ssh and Ansible take half a second to load.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from pydantic import ValidationError

from api.forms import FORMS
from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.errors import Invalid, NotFound
from reconciler.core.fleet import Fleet
from reconciler.home import Home, clock
from reconciler.operations.declaring import Actor
from reconciler.records.jobs import FINISHED, Job
from reconciler.settings import Settings

if TYPE_CHECKING:
    from reconciler.loop.tools import Tools


def settings() -> Settings:
    """The settings from the environment.

    Raises:
        Invalid: one of them has a value that it cannot have.
    """
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0]).upper()
        raise Invalid(f"Setting TRUEUP_{name.removeprefix('TRUEUP_')}: {problem['msg']}. Correct it.") from error


@contextmanager
def opened() -> Iterator[Home]:
    with Home.open(settings()) as home:
        yield home


@contextmanager
def tools_of(home: Home) -> Iterator[Tools]:
    from reconciler.loop.tools import Tools
    from reconciler.nodes.connection import Connections

    tools = Tools(home.settings, home.state, Connections(), clock)
    try:
        yield tools
    finally:
        tools.close()


@contextmanager
def refusing() -> Iterator[None]:
    """What an operation's model refuses is told in one line.

    Raises:
        Invalid: the first field that it refuses, and why.
    """
    try:
        yield
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        words = FORMS.get(problem.get("ctx", {}).get("pattern", ""), problem["msg"])
        raise Invalid(f"{problem['loc'][0]}: {words}.") from error


def actor() -> Actor:
    """Who sits at the terminal."""
    name = os.environ.get("SUDO_USER") or getpass.getuser()
    return Actor(name, f"{name}@localhost")


def node_named(fleet: Fleet, name: str) -> NodeEntry:
    if name not in fleet.nodes_by_slug:
        raise NotFound(f"No node is named {name}. `trueup node list` shows them.")
    return fleet.nodes_by_slug[name]


def environment_named(fleet: Fleet, key: str) -> EnvironmentEntry:
    if key not in fleet.environments_by_key:
        raise NotFound(f"No environment is named {key}. Name it as site/environment; `trueup status` shows them.")
    return fleet.environments_by_key[key]


def wait_for(home: Home, job_id: UUID, report: Callable[[Job], None] = lambda _job: None) -> Job:
    """The finished job. Where no process serves this home, its work is done right here."""
    seen = None
    while (job := home.records.jobs.get(job_id)).status not in FINISHED:
        if (job.status, job.attempt_count) != seen:
            seen = (job.status, job.attempt_count)
            report(job)
        if home.dispatcher.is_heard():
            time.sleep(0.1)
        else:
            _work(home, job_id)
    return job


def _work(home: Home, job_id: UUID) -> None:
    """Do jobs, oldest first, until this one is finished or a serving process takes over."""
    from reconciler.identity import is_dead
    from reconciler.loop.healing import Healing
    from reconciler.loop.worker import clean_up
    from reconciler.records.queue import Queue
    from reconciler.serve import worker_of

    with tools_of(home) as tools:
        queue = Queue(home.records.engine, home.settings.lease)
        worker = worker_of(home, tools, queue, Healing(home.records, clock, uuid4), "cli")
        clean_up(queue.reclaim(is_dead, clock()), tools)
        while home.records.jobs.get(job_id).status not in FINISHED and not home.dispatcher.is_heard():
            if not worker.work_once():
                time.sleep(0.2)
