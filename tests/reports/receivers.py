"""A web server and a mail server that keep what they are sent, and answer as they are told to."""

from __future__ import annotations

import email
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography.hazmat.primitives import serialization

from tests.lab.acme import certificate, key_pem
from tests.lab.ports import free_port

HANG_UP = 0
"""In place of a status: take the request, and close without an answer."""


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


@dataclass
class Hook:
    """A web server. ``answers`` are given in their order, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


@contextmanager
def web_server() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.requests.append(Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status = hook.answers.pop(0) if hook.answers else 200
            if status == HANG_UP:
                self.close_connection = True
                return
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", hook.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_port}/hook/s3cret?token=1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def silent() -> Iterator[tuple[int, threading.Event]]:
    """A port that takes a request and never answers, and an event that is set once all of one is there."""
    arrived, stop = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        data = b""
        while b'"delivery"' not in data and (block := connection.recv(65536)):
            data += block
        if data:
            arrived.set()
        stop.wait()

    with _listening(serve, stop) as port:
        yield port, arrived


@contextmanager
def dripping(stop: threading.Event) -> Iterator[int]:
    """A port that answers a byte every tenth of a second, and never a status."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 ")
        while not stop.wait(0.1):
            connection.sendall(b" ")

    with _listening(serve, stop) as port:
        yield port


@contextmanager
def _listening(serve: Callable[[socket.socket], None], stop: threading.Event) -> Iterator[int]:
    def take(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            serve(connection)

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=take, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@dataclass(frozen=True)
class Mail:
    sender: str
    recipients: list[str]
    message: EmailMessage
    was_encrypted: bool
    user: str | None


@dataclass
class Post:
    """A mail server. ``answers`` are given to the next mails, then it takes them; ``None``: it hangs up."""

    port: int
    ca: str = ""
    answers: list[str | None] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """Recipients that it does not know."""
    mails: list[Mail] = field(default_factory=list)

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = self.answers.pop(0) if self.answers else "250 Kept"
        if answer is None:
            assert server.transport is not None
            server.transport.abort()
            return "250 Nobody hears this"
        if answer.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            message = email.message_from_bytes(content, policy=policy.default)
            assert isinstance(message, EmailMessage)
            user = session.auth_data.login.decode() if session.auth_data else None
            self.mails.append(
                Mail(str(envelope.mail_from), list(envelope.rcpt_tos), message, session.ssl is not None, user)
            )
        return answer


@contextmanager
def mail_server(where: Path, *, encrypted: bool = True, password: str | None = None) -> Iterator[Post]:
    """``encrypted``: it takes mail only after STARTTLS, with a certificate of its own authority (``ca``)."""
    post = Post(free_port())
    options: dict[str, Any] = {}
    if encrypted:
        options |= {"tls_context": _tls(where, post), "require_starttls": True}
    if password is not None:

        def authenticate(_server: object, _session: object, _envelope: object, _way: str, given: Any) -> AuthResult:
            right = isinstance(given, LoginPassword) and given.password == password.encode()
            return AuthResult(success=right, handled=right, auth_data=given)

        options |= {"authenticator": authenticate, "auth_required": True}
    controller = Controller(post, hostname="127.0.0.1", port=post.port, ready_timeout=30, **options)
    controller.start()
    try:
        yield post
    finally:
        controller.stop()


def _tls(where: Path, post: Post) -> ssl.SSLContext:
    authority_key, authority = certificate("Lab authority", days=30, authority=True)
    key, own = certificate("127.0.0.1", days=30, issuer=(authority_key, authority), addresses=("127.0.0.1",))
    post.ca = authority.public_bytes(serialization.Encoding.PEM).decode()
    (where / "mail.pem").write_bytes(key_pem(key) + own.public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(where / "mail.pem")
    return context
