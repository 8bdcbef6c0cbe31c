"""Commands on nodes over ssh, for callers in any thread. Connections are kept, one per node, and shared."""

from __future__ import annotations

import asyncio
import shlex
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncssh

from reconciler.core.errors import NodeUnreachable
from reconciler.nodes.target import Target, connect

CANCEL_POLL_S = 0.2
OPEN_SESSION_S = 3.0
SESSIONS = 8
"""At once on one connection; sshd's own limit is 10."""
MAX_OUTPUT_BYTES = 32 << 20

_T = TypeVar("_T")


@dataclass(frozen=True)
class Completed:
    stdout: bytes
    stderr: bytes
    exit: int
    """As a shell counts: 128 + the signal's number for a command that a signal ended."""


class CommandTimeout(NodeUnreachable):
    """The node took the command, and it did not end in time."""


class PipeBroken(NodeUnreachable):
    """One half of a stream failed; what arrived is not whole.

    ``status``: the exit status of the half that failed; None where neither ended by itself.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class OutputTooLarge(NodeUnreachable):
    """The command said more than anybody wants to hear."""


class _SessionRefused(Exception):
    """The command was not started on this connection: it is dead, or has as many sessions as sshd allows."""

    def __init__(self, connection: _Connection, why: str) -> None:
        super().__init__(why)
        self.connection = connection


@dataclass(eq=False)
class _Connection:
    """A connection and how many commands run on it. Once retired it ends with the last of them."""

    ssh: asyncssh.SSHClientConnection
    commands: int = 0
    retired: bool = False

    def ended(self) -> None:
        """One of its commands has."""
        self.commands -= 1
        self._end_if_idle()

    def retire(self) -> None:
        self.retired = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self.retired and not self.commands:
            self.ssh.abort()


@dataclass
class _Link:
    """What is kept of one node."""

    connection: _Connection | None = None
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    sessions: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SESSIONS))

    def retire(self, connection: _Connection) -> None:
        """Start nothing more on it. Commands of others that run on it are not disturbed: they see for themselves."""
        connection.retire()
        if self.connection is connection:
            self.connection = None


@dataclass(frozen=True)
class _Started:
    process: asyncssh.SSHClientProcess[bytes]
    connection: _Connection


class Connections:
    """Runs commands on nodes; use it from any thread, close it once."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._links: dict[Target, _Link] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="node-connections", daemon=True)
        self._thread.start()

    def run(
        self,
        target: Target,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Completed:
        """Run ``argv`` as root and wait; a status that isn't 0 is the caller's to judge.

        The node itself ends the command after ``timeout_s``. Raises NodeUnreachable (CommandTimeout, OutputTooLarge).
        A command may be sent twice if a kept connection turns out to be dead, never once it has answered.
        """
        return self.wait(
            self.run_async(target, argv, stdin=stdin, timeout_s=timeout_s, max_output_bytes=max_output_bytes)
        )

    async def run_async(
        self,
        target: Target,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Completed:
        """``run`` for coroutines that are given to ``wait``."""
        link = self._links.setdefault(target, _Link())
        command = _command(target, argv, timeout_s)
        async with link.sessions:
            try:
                started = await self._start(target, link, command)
            except _SessionRefused as refused:
                link.retire(refused.connection)
                started = await self._start_afresh(target, link, command)
            try:
                return await _finish(target, link, started, stdin, timeout_s, max_output_bytes)
            finally:
                started.connection.ended()

    def pipe(
        self,
        source: Target,
        command: Sequence[str],
        target: Target,
        into: Sequence[str],
        *,
        timeout_s: float,
        cancel: threading.Event | None = None,
    ) -> None:
        """What ``command`` prints on one node goes into ``into`` on another, through this host and never onto its disk.

        Raises:
            NodeUnreachable: either was lost, or did not end in time.
            PipeBroken: either ended with a status that isn't 0, or ``cancel`` was set, which ends both.
        """
        self.wait(self._pipe(source, command, target, into, timeout_s, cancel or threading.Event()))

    async def _pipe(
        self,
        source: Target,
        command: Sequence[str],
        target: Target,
        into: Sequence[str],
        timeout_s: float,
        cancel: threading.Event,
    ) -> None:
        links = [self._links.setdefault(one, _Link()) for one in (source, target)]
        async with AsyncExitStack() as stack:
            halves = []
            for node, link, argv in ((source, links[0], command), (target, links[1], into)):
                await stack.enter_async_context(link.sessions)
                started = await self._start_afresh(node, link, _command(node, argv, timeout_s))
                stack.callback(started.connection.ended)
                halves.append(started)
            reader, writer = (started.process for started in halves)
            try:
                async with asyncio.timeout(timeout_s + 2):
                    reader.stdin.write_eof()
                    await _unless_cancelled(_whole(reader, writer), cancel)
            except _Cancelled as error:
                await asyncio.gather(*(_end(process) for process in (reader, writer)))
                raise PipeBroken(f"The stream from {source} to {target} was cancelled.") from error
            except (asyncssh.Error, OSError) as error:
                for link, started in zip(links, halves, strict=True):
                    link.retire(started.connection)
                raise NodeUnreachable(f"The stream from {source} to {target} broke off: {error}") from error
        for node, process in ((source, reader), (target, writer)):
            if process.returncode != 0:
                message = f"{node} ended its half of a stream with status {process.returncode}."
                raise PipeBroken(message, process.returncode)

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of ``work``, done on the connections' own loop. Call it from outside of that loop."""
        if self._closed:
            work.close()
            raise NodeUnreachable(
                "The connections to the nodes are closed, because Trueup is stopping. Start it again."
            )
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except CancelledError as error:
            raise NodeUnreachable("The connection was closed, because Trueup is stopping. Start it again.") from error

    def close(self) -> None:
        """End all connections; a second call does nothing."""
        if not self._closed:
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _close(self) -> None:
        open_ones = [link.connection.ssh for link in self._links.values() if link.connection]
        self._links.clear()
        for connection in open_ones:
            connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(connection.wait_closed() for connection in open_ones), return_exceptions=True)
        for connection in open_ones:
            connection.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _start_afresh(self, target: Target, link: _Link, command: str) -> _Started:
        try:
            return await self._start(target, link, command)
        except _SessionRefused as refused:
            link.retire(refused.connection)
            raise NodeUnreachable(
                f"{target} accepts a login but starts no command: {refused}. Look at it."
            ) from refused

    async def _start(self, target: Target, link: _Link, command: str) -> _Started:
        async with link.connecting:
            if link.connection is None or link.connection.ssh.is_closed():
                link.connection = _Connection(await connect(target))
            connection = link.connection
        connection.commands += 1
        try:
            async with asyncio.timeout(OPEN_SESSION_S):
                return _Started(await connection.ssh.create_process(command, encoding=None), connection)
        except (asyncssh.Error, OSError) as error:  # TimeoutError is an OSError
            connection.ended()
            raise _SessionRefused(connection, str(error) or "no answer") from error
        except asyncio.CancelledError:
            connection.ended()
            raise


def _command(target: Target, argv: Sequence[str], timeout_s: float) -> str:
    become = [] if target.user == "root" else ["sudo", "-n", "--"]
    return shlex.join([*become, "timeout", "-k", "1", f"{timeout_s:.3f}", *argv])


async def _finish(
    target: Target,
    link: _Link,
    started: _Started,
    stdin: bytes,
    timeout_s: float,
    limit: int,
) -> Completed:
    process = started.process
    try:
        async with asyncio.timeout(timeout_s + 2):
            with suppress(BrokenPipeError):
                process.stdin.write(stdin)
                process.stdin.write_eof()
            stdout, stderr = await asyncio.gather(_read(process.stdout, limit), _read(process.stderr, limit))
            await process.wait_closed()
    except TimeoutError as error:
        link.retire(started.connection)
        raise CommandTimeout(f"{target} did not end a command within {timeout_s:g} s. Look at its load.") from error
    except _TooLarge as error:
        process.close()
        raise OutputTooLarge(f"{target} answered with more than {limit >> 10} KiB. Look at what runs there.") from error
    except (asyncssh.Error, OSError) as error:
        link.retire(started.connection)
        raise NodeUnreachable(f"{target} was lost in the middle of a command. Check its network.") from error
    return _completed(target, link, started, stdout, stderr, timeout_s)


def _completed(
    target: Target,
    link: _Link,
    started: _Started,
    stdout: bytes,
    stderr: bytes,
    timeout_s: float,
) -> Completed:
    status = started.process.returncode
    if status is None:
        link.retire(started.connection)
        raise NodeUnreachable(f"{target} was lost in the middle of a command. Check its network.")
    if status in (124, 137, -9):  # what timeout(1) says when it had to end the command
        raise CommandTimeout(f"{target} did not end a command within {timeout_s:g} s. Look at its load.")
    return Completed(stdout, stderr, status if status >= 0 else 128 - status)


class _Cancelled(Exception):
    """Somebody wants the stream no longer."""


async def _unless_cancelled(work: Coroutine[Any, Any, None], cancel: threading.Event) -> None:
    """Do ``work``; raise _Cancelled within a moment after ``cancel`` was set from another thread."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=CANCEL_POLL_S))[0]:
            if cancel.is_set():
                raise _Cancelled
        task.result()
    finally:
        task.cancel()


async def _whole(reader: asyncssh.SSHClientProcess[bytes], writer: asyncssh.SSHClientProcess[bytes]) -> None:
    await _pour(reader, writer)
    await asyncio.gather(reader.wait_closed(), writer.wait_closed())


async def _end(process: asyncssh.SSHClientProcess[bytes]) -> None:
    """Have the node end the command: timeout(1) passes the signal on, and what it runs loses its pipes."""
    with suppress(OSError, asyncssh.Error):
        process.terminate()
        async with asyncio.timeout(OPEN_SESSION_S):
            await process.wait_closed()
    process.close()


async def _pour(reader: asyncssh.SSHClientProcess[bytes], writer: asyncssh.SSHClientProcess[bytes]) -> None:
    """All that ``reader`` prints, with no more of it in memory than a chunk and the window."""
    while chunk := await reader.stdout.read(1 << 18):
        writer.stdin.write(chunk)
        await writer.stdin.drain()
    writer.stdin.write_eof()


class _TooLarge(Exception):
    """More than the limit was read."""


async def _read(stream: asyncssh.SSHReader[bytes], limit: int) -> bytes:
    data = bytearray()
    while chunk := await stream.read(1 << 16):
        data += chunk
        if len(data) > limit:
            raise _TooLarge
    return bytes(data)
