"""Listens on an address of the lab and keeps what comes: each connection, and each datagram."""

import fcntl
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from tests.lab.paths import state_directory

MAIL = (25, 465, 587, 2525)
WEB = 80
PATIENCE_S = 10.0
MOST = 4096


@dataclass
class Listener:
    """`calls`: the first that each said, and nothing for who said nothing; who was greeted is in it at once."""

    address: str
    port: int = 0
    calls: list[bytes] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://{self.address}:{self.port}{path}"

    def has(self, word: str) -> bool:
        return any(word.encode() in call for call in self.calls)


@contextmanager
def listener(address: str, *, mail: bool = False) -> Iterator[Listener]:
    """One port for HTTP and UDP; with ``mail`` its ports, too, which greet as a mail server does, and HTTP's own port.

    All labs of a machine have one address, and each port of mail is there once: who wants them waits for the other.
    """
    found = Listener(address)
    with ExitStack() as stack:
        web = stack.enter_context(socket.create_server((address, 0)))
        found.port = web.getsockname()[1]
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind((address, found.port))
        if mail:
            lock = stack.enter_context((state_directory() / "mail.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        servers = [stack.enter_context(socket.create_server((address, port))) for port in (MAIL if mail else ())]
        sites = [stack.enter_context(socket.create_server((address, WEB)))] if mail else []
        work = [(_serve, (found, web, b"")), (_take, (found, datagrams))]
        work += [(_serve, (found, one, b"220 lab ESMTP\r\n")) for one in servers]
        work += [(_serve, (found, one, b"")) for one in sites]
        for one in (web, datagrams, *servers, *sites):
            stack.callback(_end, one)
        for act, arguments in work:
            threading.Thread(target=act, args=arguments, daemon=True).start()
        yield found


def _serve(found: Listener, server: socket.socket, greeting: bytes) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(found, connection, greeting), daemon=True).start()


def _answer(found: Listener, connection: socket.socket, greeting: bytes) -> None:
    said = b""
    with connection, suppress(OSError):
        connection.settimeout(PATIENCE_S)
        try:
            connection.sendall(greeting)
            said = connection.recv(MOST)
        finally:
            found.calls.append(said)  # once, whether it waits for an answer or has gone
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def _take(found: Listener, datagrams: socket.socket) -> None:
    while True:
        try:
            found.calls.append(datagrams.recv(MOST))
        except OSError:
            return


def _end(one: socket.socket) -> None:
    with suppress(OSError):  # nobody is connected
        one.shutdown(socket.SHUT_RDWR)
