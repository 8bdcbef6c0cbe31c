"""A web server on an address of the lab: archives, redirects, and every way in which a source of archives fails."""

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@dataclass
class WebServer:
    """Serves what is put into `answers`, by path; `asked` are the paths that were asked for."""

    address: str
    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://{self.address}:{self.port}{path}"

    def serve(self, path: str, data: bytes) -> str:
        """These bytes, whole."""
        return self._put(path, lambda request: _send(request, data, len(data)))

    def redirect(self, path: str, location: str, status: int = 302) -> str:
        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Location", location)
            request.send_header("Content-Length", "0")
            request.end_headers()

        return self._put(path, answer)

    def lie(self, path: str, data: bytes, length: int) -> str:
        """These bytes under another length; a longer one is an early close."""
        return self._put(path, lambda request: _send(request, data, length))

    def status(self, path: str, status: int) -> str:
        return self._put(path, lambda request: request.send_error(status))

    def drip(self, path: str, seconds: float = 0.05) -> str:
        """A byte now and then, for as long as somebody listens."""

        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.end_headers()
            while True:
                request.wfile.write(b"\x1f")
                time.sleep(seconds)

        return self._put(path, answer)

    def drip_headers(self, path: str, seconds: float = 0.05) -> str:
        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while True:
                request.wfile.write(b"a")
                time.sleep(seconds)

        return self._put(path, answer)

    def endless(self, path: str) -> str:
        """As fast as it goes, without a length and without an end."""

        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.end_headers()
            while True:
                request.wfile.write(b"\0" * 65536)

        return self._put(path, answer)

    def close_at_once(self, path: str) -> str:
        return self._put(path, lambda request: request.connection.shutdown(socket.SHUT_RDWR))

    def _put(self, path: str, answer: Answer) -> str:
        self.answers[path] = answer
        return self.url(path)


def _send(request: http.server.BaseHTTPRequestHandler, data: bytes, length: int) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(length))
    request.end_headers()
    request.wfile.write(data)


@contextmanager
def web_server(address: str) -> Iterator[WebServer]:
    """Listening on a free port of `address`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            answer = site.answers.get(self.path.split("?")[0])
            try:
                if answer is None:
                    self.send_error(404)
                else:
                    answer(self)
            except OSError:
                pass  # whoever asked has gone
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    site = WebServer(address, server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
