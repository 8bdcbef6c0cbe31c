"""One file from somebody's web server: within limits, from the addresses that were checked, and from no others."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

from reconciler.core.errors import SourceRefused, SourceUnavailable
from reconciler.sources.hosts import connected

REDIRECTS = 5
MOVED = frozenset({301, 302, 303, 307, 308})
SILENCE_S = 30.0
BLOCK = 1 << 18
CANCEL_POLL_S = 0.3


def download(
    url: str,
    target: Path,
    *,
    allowed: Collection[str],
    most_bytes: int,
    timeout_s: float,
    form: Mapping[str, str] | None = None,
    agent: str = "Trueup",
    cancel: threading.Event | None = None,
) -> None:
    """Write what ``url`` answers to ``target``; a ``form`` is posted. ``cancel`` ends it as the end of the time does.

    Raises:
        SourceRefused: the address, or one that it redirects to, may not be asked, or the answer is too large.
        SourceUnavailable: no whole answer came in time.
    """
    deadline, cancel = time.monotonic() + timeout_s, cancel or threading.Event()
    for _ in range(REDIRECTS + 1):
        refuse_unless_web(url)
        if cancel.is_set() or time.monotonic() > deadline:
            raise _late(url)
        with _opened(url, allowed, deadline, cancel) as (connection, path):
            answer = _asked(connection, path, form, agent)
            if answer.status not in MOVED:
                _write(answer, target, url, most_bytes)
                return
            url = urljoin(url, answer.getheader("Location", ""))
    raise SourceUnavailable(f"{_shown(url)} redirects more than {REDIRECTS} times.")


def refuse_unless_web(url: str) -> None:
    """Raises SourceRefused unless it is an http or https URL without a password in it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        usable = None
    if not usable or any(ord(one) <= 32 or ord(one) == 127 for one in url):
        raise SourceRefused("The address is no http or https URL. Correct it.")
    if parts.password is not None:
        raise SourceRefused("The address holds a password, and Git would keep it. Leave it out.")


@contextmanager
def _opened(
    url: str, allowed: Collection[str], deadline: float, cancel: threading.Event
) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    """A connection to one of the addresses that were checked, and what to ask there. It ends with the time."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    connection = http.client.HTTPConnection(host, port, timeout=SILENCE_S)
    try:
        try:
            raw = connected(host, port, allowed, SILENCE_S)
        except OSError as error:
            words = error.strerror or str(error) or type(error).__name__
            raise SourceUnavailable(f"{_shown(url)} cannot be reached: {words}.") from error
        with _ended_in_time(raw, deadline, cancel):
            connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
            yield connection, f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        # An answer without a length ends where its connection does.
        if cancel.is_set() or time.monotonic() > deadline:
            raise _late(url)
    except (OSError, http.client.HTTPException, SourceUnavailable) as error:
        if cancel.is_set() or time.monotonic() > deadline:
            raise _late(url) from error
        if isinstance(error, SourceUnavailable):
            raise
        raise SourceUnavailable(f"{_shown(url)} cannot be read: {error or type(error).__name__}.") from error
    finally:
        connection.close()


@contextmanager
def _ended_in_time(wire: socket.socket, deadline: float, cancel: threading.Event) -> Iterator[None]:
    """Ends the connection at the deadline or when nobody wants it any more, also where each byte comes in time."""
    # TLS takes the socket away from whoever has it; a copy of its descriptor ends the connection all the same.
    done, copy = threading.Event(), wire.dup()

    def watch() -> None:
        while not done.wait(CANCEL_POLL_S):
            if cancel.is_set() or time.monotonic() > deadline:
                with suppress(OSError):
                    copy.shutdown(socket.SHUT_RDWR)
                break
        copy.close()

    threading.Thread(target=watch, name="download", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _asked(
    connection: http.client.HTTPConnection, path: str, form: Mapping[str, str] | None, agent: str
) -> http.client.HTTPResponse:
    headers = {"User-Agent": agent, "Accept-Encoding": "identity"}
    if form is None:
        connection.request("GET", path, headers=headers)
    else:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request("POST", path, urlencode(form), headers)
    return connection.getresponse()


def _write(answer: http.client.HTTPResponse, target: Path, url: str, most_bytes: int) -> None:
    if answer.status != 200:
        raise SourceUnavailable(f"{_shown(url)} answers {answer.status}. Check the address.")
    declared = answer.getheader("Content-Length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise _too_large(url, most_bytes)
    left = most_bytes
    with target.open("wb") as file:
        while block := answer.read1(BLOCK):
            left -= len(block)
            if left < 0:
                raise _too_large(url, most_bytes)
            file.write(block)
    if declared.isdecimal() and most_bytes - left != int(declared):
        raise SourceUnavailable(f"{_shown(url)} broke off after {most_bytes - left} of {declared} bytes.")


def _late(url: str) -> SourceUnavailable:
    return SourceUnavailable(f"{_shown(url)} did not arrive in time.")


def _too_large(url: str, most_bytes: int) -> SourceRefused:
    return SourceRefused(f"{_shown(url)} is larger than {most_bytes // (1 << 20)} MiB.")


def _shown(url: str) -> str:
    """Without the query, which may hold a signature."""
    return url.partition("?")[0]
