"""One attempt to hand a message over. What certainly did not arrive is told apart from what may have."""

from __future__ import annotations

import http.client
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any
from urllib.parse import urlsplit

from reconciler.addresses import connected
from reconciler.core.receivers import Smtp

SILENCE_S = 10.0
LONGEST_S = 60.0
"""An attempt is cut off then, however slowly the other side goes on."""
MAY_HAVE_ARRIVED = frozenset({502, 504})
"""What a proxy says when it doesn't know what became of a request behind it."""


@dataclass(frozen=True)
class Arrived:
    """The other side said that it took it."""


@dataclass(frozen=True)
class NotArrived:
    """The other side said no, or never had all of it."""

    reason: str


@dataclass(frozen=True)
class Uncertain:
    """All or some of it was sent, and no answer came that says what became of it."""

    reason: str


Result = Arrived | NotArrived | Uncertain


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Result:
    """POST JSON. A redirect is not followed: whoever signs must know whom for."""
    try:
        parts = urlsplit(url)
        secure, host, port = parts.scheme == "https", parts.hostname or "", parts.port
    except ValueError as error:
        return NotArrived(f"Its address is none: {error}.")
    connection = _Connection(host, port or (443 if secure else 80), secure=secure)
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    with _cut_off(connection):
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:
            return NotArrived(f"It cannot be reached: {_words(error)}.")
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json; charset=utf-8", **headers})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return Uncertain(f"It did not answer: {_words(error)}.")
        finally:
            connection.close()
    if 200 <= status < 300:
        return Arrived()
    if status in MAY_HAVE_ARRIVED:
        return Uncertain(f"A proxy in front of it answers {status}.")
    return NotArrived(f"It answers {status}.")


class _Connection(http.client.HTTPConnection):
    """To an address of the host that was checked."""

    def __init__(self, host: str, port: int, *, secure: bool) -> None:
        super().__init__(host, port, timeout=SILENCE_S)
        self._secure = secure

    def connect(self) -> None:
        plain = connected(self.host, self.port, SILENCE_S)
        context = ssl.create_default_context() if self._secure else None
        self.sock = context.wrap_socket(plain, server_hostname=self.host) if context else plain


class _Smtp(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return connected(host, port, timeout)


class _SmtpTls(smtplib.SMTP_SSL):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self.context.wrap_socket(connected(host, port, timeout), server_hostname=host)


def send_mail(mail: EmailMessage, recipient: str, smtp: Smtp, credentials: Mapping[str, str] | None) -> Result:
    """Hand a mail to the server. Until the server has all of it, nothing can have arrived."""
    try:
        client = _greeted(smtp)
    except (OSError, UnicodeError, smtplib.SMTPException) as error:
        return NotArrived(f"{smtp.host} cannot be reached: {_words(error)}.")
    with _cut_off(client):
        try:
            if credentials is not None:
                client.login(credentials["username"], credentials["password"])
            _expect(client.mail(smtp.sender), 250)
            _expect(client.rcpt(recipient), 250, 251)
        except (OSError, UnicodeError, smtplib.SMTPException) as error:
            client.close()
            return NotArrived(f"{smtp.host} does not take it: {_words(error)}.")
        return _handed_over(client, mail, smtp)


def _handed_over(client: smtplib.SMTP, mail: EmailMessage, smtp: Smtp) -> Result:
    try:
        _expect(client.data(mail.as_bytes(policy=SMTP)), 250)
    except smtplib.SMTPResponseException as error:
        return NotArrived(f"{smtp.host} does not take it: {_words(error)}.")
    except (OSError, smtplib.SMTPException) as error:
        return Uncertain(f"{smtp.host} did not answer: {_words(error)}.")
    else:
        with suppress(OSError, smtplib.SMTPException):
            client.quit()
        return Arrived()
    finally:
        client.close()


def _greeted(smtp: Smtp) -> smtplib.SMTP:
    """A session, encrypted as declared or not at all."""
    context = ssl.create_default_context(cadata=smtp.ca_bundle) if smtp.ca_bundle else ssl.create_default_context()
    if smtp.security == "tls":
        return _SmtpTls(smtp.host, smtp.port, timeout=SILENCE_S, context=context)
    client = _Smtp(smtp.host, smtp.port, timeout=SILENCE_S)
    try:
        client.ehlo_or_helo_if_needed()
        if smtp.security == "starttls":
            client.starttls(context=context)
            client.ehlo()
    except (OSError, smtplib.SMTPException):
        client.close()
        raise
    return client


def _expect(answer: tuple[int, bytes], *codes: int) -> None:
    if answer[0] not in codes:
        raise smtplib.SMTPResponseException(answer[0], answer[1])


@contextmanager
def _cut_off(session: Any) -> Iterator[None]:
    """Ends the session's connection after ``LONGEST_S``: a timeout alone begins anew with every byte."""

    def cut() -> None:
        if session.sock is not None:
            with suppress(OSError):
                session.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(LONGEST_S, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _words(error: BaseException) -> str:
    """What went wrong, without what would repeat an address."""
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return f"{error.smtp_code} {text}".rstrip(".")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
