"""A node that says what it likes: an ssh server of this process, whose answer to any command is a test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh

from reconciler.nodes.target import Target

Process = Any
Answer = Callable[[Process], Awaitable[None]]


@contextmanager
def hostile_node(work: Path, name: str, answer: Answer) -> Iterator[Target]:
    """The node, reached as any other is."""
    host_key, client_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    key_file = work / f"{name}-key"
    key_file.write_bytes(client_key.export_private_key())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def handle(process: Process) -> None:
        with suppress(asyncssh.Error, OSError, asyncio.CancelledError):
            await answer(process)

    async def listen() -> Any:
        keys = asyncssh.import_authorized_keys(client_key.export_public_key().decode())
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=keys,
            process_factory=handle,
            encoding=None,
        )

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    public = " ".join(host_key.export_public_key().decode().split()[:2])
    try:
        yield Target(name, "127.0.0.1", server.sockets[0].getsockname()[1], "root", public, key_file)
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)


async def _end(server: Any) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def says(answer: bytes) -> Answer:
    """All of it at once, and the end."""

    async def serve(process: Process) -> None:
        await process.stdin.read()
        process.stdout.write(answer)
        process.exit(0)

    return serve


async def drips(process: Process) -> None:
    """A byte at a time, for ever."""
    while True:
        process.stdout.write(b" ")
        await asyncio.sleep(0.05)


async def floods(process: Process) -> None:
    while True:
        process.stdout.write(b"x" * (1 << 16))
        await process.stdout.drain()


async def complains(process: Process) -> None:
    while True:
        process.stderr.write(b"\x1b]0;pwned\x07" * 5_000)
        await process.stderr.drain()


async def never_ends(process: Process) -> None:
    process.stdout.write(b"{}")
    process.stdout.write_eof()
    await asyncio.sleep(3_600)


async def hears_nothing(process: Process) -> None:
    """The program that is sent is never read."""
    await asyncio.sleep(3_600)


async def fails(process: Process) -> None:
    process.stderr.write(b"first\n\x1b[2J\xe2\x80\xaegnp.exe" + b"!" * 100_000)
    process.exit(1)
