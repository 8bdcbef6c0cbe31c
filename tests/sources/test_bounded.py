"""Somebody's server that says too much, or too little at a time, is left when the time or the room is over."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.core.errors import SourceUnavailable
from reconciler.sources.downloads import download
from reconciler.sources.git import Git, GitSource

HEAD = b"HTTP/1.1 200 OK\r\n"
PAUSE_S = 0.05


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Its URL. Each connection is handed to ``serve``, in its turn."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def take() -> None:
        while not ended.is_set():
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            with taken:
                try:
                    taken.recv(1 << 16)
                    serve(taken)
                except OSError:
                    continue

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield "http://{}:{}/file".format(*listener.getsockname())
    finally:
        ended.set()
        listener.close()


def dripping(head: bytes) -> Callable[[socket.socket], None]:
    def serve(taken: socket.socket) -> None:
        taken.sendall(head)
        while True:
            taken.sendall(b"x")
            time.sleep(PAUSE_S)

    return serve


DRIPPING = {"a status line": b"", "headers": HEAD, "a body": HEAD + b"Content-Length: 9999\r\n\r\n"} | {
    "a body without a length": HEAD + b"\r\n",
    "what is redirected": b"HTTP/1.1 302 Found\r\n",
}


@pytest.mark.parametrize("what", DRIPPING)
def test_a_byte_at_a_time_is_no_answer(what: str, tmp_path: Path) -> None:
    with server(dripping(DRIPPING[what])) as url, pytest.raises(SourceUnavailable, match="did not arrive in time"):
        download(url, tmp_path / "file", allowed=("127.0.0.1",), most_bytes=1 << 20, timeout_s=0.5)


@pytest.mark.parametrize("what", DRIPPING)
def test_a_job_that_is_cancelled_waits_for_no_answer(what: str, tmp_path: Path) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    with server(dripping(DRIPPING[what])) as url, pytest.raises(SourceUnavailable, match="did not arrive in time"):
        download(url, tmp_path / "file", allowed=("127.0.0.1",), most_bytes=1 << 20, timeout_s=600, cancel=cancel)


def test_what_ends_where_the_connection_does_is_whole(tmp_path: Path) -> None:
    with server(lambda taken: taken.sendall(HEAD + b"\r\nall of it")) as url:
        download(url, tmp_path / "file", allowed=("127.0.0.1",), most_bytes=1 << 20, timeout_s=120)
    assert (tmp_path / "file").read_bytes() == b"all of it"


@pytest.mark.parametrize("pipe", [1, 2])
def test_git_that_says_too_much_is_not_listened_to(pipe: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote's references and its remarks are passed on by git, as many as there are."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec yes 'remote: more, and yet more of the same' >&{pipe}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceUnavailable, match="more than anybody wants to hear"):
        Git(tmp_path, ("127.0.0.1",)).resolve(GitSource.parse("https://127.0.0.1/site.git"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10, "in KiB"


def test_git_that_says_nothing_is_left_when_nobody_wants_it(tmp_path: Path) -> None:
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with server(lambda taken: time.sleep(30)) as url, pytest.raises(SourceUnavailable, match="was asked no longer"):
        Git(tmp_path, ("127.0.0.1",), cancel).resolve(GitSource.parse(url.replace("/file", "/site.git")))
