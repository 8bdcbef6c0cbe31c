"""The world outside: a web service and a mail server that note who called."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Listener:
    """Notes the first words of every connection. ``calls`` and ``mails`` are by who called, as they say themselves."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.web, self.mail = (socket.create_server((address, 0)) for _ in range(2))
        self.calls: Counter[str] = Counter()
        self.mails: Counter[str] = Counter()

    @property
    def option(self) -> str:
        """As the shop's plugin has it in its option."""
        return f"{self.address} {self.web.getsockname()[1]} {self.mail.getsockname()[1]}"

    def serve(self) -> None:
        for server, answer in ((self.web, self._web), (self.mail, self._mail)):
            threading.Thread(target=self._take, args=(server, answer), daemon=True).start()

    def close(self) -> None:
        for server in (self.web, self.mail):
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()

    def _take(self, server: socket.socket, answer: object) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()  # type: ignore[arg-type]

    def _web(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(5)
            words = connection.recv(4096).decode(errors="replace")
            self.calls[words.partition("from=")[2].partition(" ")[0].partition("-")[0] or "somebody"] += 1
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    def _mail(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(5)
            connection.sendall(b"220 mail\r\n")
            words = b""
            while b"QUIT" not in words and (block := connection.recv(4096)):
                words += block
            self.mails[words.decode(errors="replace").partition("shop@")[2].partition(".")[0] or "somebody"] += 1


@contextmanager
def listening(address: str) -> Iterator[Listener]:
    listener = Listener(address)
    listener.serve()
    try:
        yield listener
    finally:
        listener.close()
