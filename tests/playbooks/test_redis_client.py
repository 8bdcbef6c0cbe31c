"""What root reads of a Redis that a site may have put another server in the place of."""

from __future__ import annotations

import getpass
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.playbooks.node_modules import load

caches = load("environment.caches")
ME = getpass.getuser()


@contextmanager
def server(path: Path, answer: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """Answers whatever it is asked."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                connection.recv(4096)
                for part in answer():
                    connection.sendall(part)

        threading.Thread(target=serve, daemon=True).start()
        yield str(path)


def nested() -> Iterator[bytes]:
    yield b"*1\r\n" * 100_000


def long_line() -> Iterator[bytes]:
    while True:
        yield b"+" + b"x" * 65_536


def large() -> Iterator[bytes]:
    yield b"$900000000\r\n"
    while True:
        yield b"x" * 65_536


def many() -> Iterator[bytes]:
    yield b"*99999999999\r\n"


def many_large() -> Iterator[bytes]:
    yield b"*9999\r\n"
    while True:
        yield b"$1000000\r\n" + b"x" * 1_000_000 + b"\r\n"


def no_number() -> Iterator[bytes]:
    yield b":-1_000\r\n"


def nothing() -> Iterator[bytes]:
    yield b""


@pytest.mark.parametrize("answer", [nested, long_line, large, many, many_large, no_number])
def test_an_answer_has_bounds(tmp_path: Path, answer: Callable[[], Iterator[bytes]]) -> None:
    with server(tmp_path / "s", answer) as path, caches.Redis(path, ME) as redis, pytest.raises(caches.RedisError):
        redis.call("DBSIZE")


def test_nobody_elses_server_is_asked(tmp_path: Path) -> None:
    with server(tmp_path / "s", nothing) as path, pytest.raises(caches.RedisError, match="is not nobody's"):
        caches.Redis(path, "nobody")


def test_whoever_is_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "PATIENCE_S", 0.2)
    with server(tmp_path / "s", nothing) as path, caches.Redis(path, ME) as redis, pytest.raises(caches.RedisError):
        redis.call("DBSIZE")
