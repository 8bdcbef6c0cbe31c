"""One serving process: the API, workers, ticks, and an ear for pushes. Ends them in the right order."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from uuid import uuid4

import structlog
import uvicorn
from fastapi import FastAPI

from api.server import server_config
from reconciler.core.errors import Conflict, RecordsError, StoreError
from reconciler.core.jobs import JobType
from reconciler.home import Home, clock
from reconciler.identity import is_dead
from reconciler.loop.healing import Healing
from reconciler.loop.schedule import Schedule
from reconciler.loop.tools import Tools
from reconciler.loop.worker import Worker, clean_up
from reconciler.nodes.connection import Connections
from reconciler.records.queue import Queue

log = structlog.get_logger()

OBSERVERS = 2
LOOKS = frozenset({JobType.NODE_OBSERVE, JobType.HEALTH_CHECK, JobType.REPORT_DELIVERY})
BY_WORKERS = frozenset(JobType) - {JobType.OPERATOR_RUN}
DRILLS = frozenset({JobType.DRILL})
WORK = BY_WORKERS - LOOKS - DRILLS
STOP_S = 20.0
"""How long a worker may take to stop what it runs on a node."""


def serve(home: Home, app: FastAPI) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Conflict: nobody can listen at the address.
    """
    settings = home.settings
    with ExitStack() as stack:
        # uvicorn raises the signal again when it has ended; what is below must end in order then, too.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        ear = stack.enter_context(_bound(settings.listen_address, settings.listen_port))
        stack.enter_context(background(home))
        stack.callback(_ignore_signals)
        config = server_config(app, timeout_graceful_shutdown=5)
        _Server(config, app).run(sockets=[ear])


class _Server(uvicorn.Server):
    """Tells the application when the end begins: it has answers that go on until somebody ends them."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.ending.begin()
        await super().shutdown(sockets)


def _ignore_signals() -> None:
    """The end has begun: another SIGTERM doesn't make it quicker."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        server = socket.create_server((address, port), family=family, backlog=2048)
    except OSError as error:
        raise Conflict(
            f"{address} port {port} cannot be listened at: {error.strerror}. End what has it, or set "
            "TRUEUP_LISTEN_ADDRESS and TRUEUP_LISTEN_PORT."
        ) from error
    # Inherited by each connection; asyncio sets it only on sockets that name their protocol, and without it a small
    # answer waits 40 ms for the client's acknowledgement.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


@contextmanager
def background(home: Home) -> Iterator[Tools]:
    """Workers and ticks of this process, running until the block ends; a job that runs then is given up."""
    settings, dispatcher = home.settings, home.dispatcher
    queue = Queue(home.records.engine, settings.lease)
    healing = Healing(home.records, clock, uuid4)
    warm = settings.warm_ansible and settings.workers > 0
    tools = Tools(settings, home.state, Connections(), clock, warm=warm)
    plan = shared_out(settings.workers)
    workers = [worker_of(home, tools, queue, healing, name, job_types) for name, job_types in plan.items()]
    with ExitStack() as stack:
        stack.callback(tools.close)
        clean_up(queue.reclaim(is_dead, clock()), tools)
        with suppress(StoreError, RecordsError):  # the ticks try again; a full disk must not keep the API down
            home.operations.declarations.recover()
        threads = [threading.Thread(target=worker.run, name=worker.identity, daemon=True) for worker in workers]
        stack.callback(_end_all, workers, threads)
        for thread in threads:
            thread.start()
        if settings.schedule:
            schedule = Schedule(settings, tools, home.operations, queue, healing, dispatcher, clock, uuid4)
            schedule.start()
            stack.callback(schedule.stop)
            stack.enter_context(_listening(home, schedule))
        yield tools


def shared_out(workers: int) -> dict[str, frozenset[JobType]]:
    """The workers of a serving process by name, each with what it does; none for 0.

    Looking has workers of its own: nodes, or receivers of reports, that don't answer must not keep anybody from
    working. So have drills, each of which may take as long as a job may, of any number of nodes at once.
    """
    if not workers:
        return {}
    plan = {f"worker-{n + 1}": WORK for n in range(workers)}
    return plan | {f"observer-{n + 1}": LOOKS for n in range(OBSERVERS)} | {"driller": DRILLS}


def worker_of(
    home: Home,
    tools: Tools,
    queue: Queue,
    healing: Healing,
    name: str,
    job_types: frozenset[JobType] = BY_WORKERS,
) -> Worker:
    """A worker with the home's settings."""
    return Worker(
        name,
        tools,
        queue,
        healing,
        home.dispatcher,
        clock=clock,
        job_timeout_s=home.settings.job_timeout_s,
        lease=home.settings.lease,
        job_types=job_types,
    )


def _end_all(workers: list[Worker], threads: list[threading.Thread]) -> None:
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join(timeout=STOP_S)


@contextmanager
def _listening(home: Home, schedule: Schedule) -> Iterator[None]:
    """Any datagram on the wake socket means: look at the store and the queue now."""
    path = home.settings.wake_socket
    if home.dispatcher.is_heard():
        # A second process on one home polls; the first keeps its ear.
        log.warning("another process listens for pushes to this home", socket=str(path))
        yield
        return
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path.unlink(missing_ok=True)
    try:
        ear.bind(str(path))
    except OSError as error:
        ear.close()
        raise Conflict(f"{path} cannot be listened at: {error.strerror}. Choose a shorter TRUEUP_HOME.") from error
    path.chmod(0o600)
    done = threading.Event()
    thread = threading.Thread(target=_listen, args=(ear, done, home, schedule), name="wake", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        home.dispatcher.wake()
        thread.join(timeout=2)
        ear.close()
        path.unlink(missing_ok=True)


def _listen(ear: socket.socket, done: threading.Event, home: Home, schedule: Schedule) -> None:
    while not done.is_set():
        ear.recv(1)
        if not done.is_set():
            home.dispatcher.wake_here()
            schedule.wake()
