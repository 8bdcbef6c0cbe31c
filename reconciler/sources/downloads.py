"""One file from somebody's web server: within limits, from the addresses that were checked, and from no others."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

from reconciler.core.errors import SourceRefused, SourceUnavailable
from reconciler.sources.hosts import addresses_of

REDIRECTS = 5
SILENCE_S = 30.0
BLOCK = 1 << 18


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
    deadline = time.monotonic() + timeout_s
    for _ in range(REDIRECTS + 1):
        connection, path = _connect(url, allowed)
        try:
            headers = {"User-Agent": agent, "Accept-Encoding": "identity"}
            if form is None:
                connection.request("GET", path, headers=headers)
            else:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                connection.request("POST", path, urlencode(form), headers)
            answer = connection.getresponse()
            if answer.status in {301, 302, 303, 307, 308}:
                url = urljoin(url, answer.getheader("Location", ""))
                continue
            if answer.status != 200:
                raise SourceUnavailable(f"{_shown(url)} answers {answer.status}. Check the address.")
            _write(answer, target, url, most_bytes, deadline, cancel or threading.Event())
            return
        except (OSError, http.client.HTTPException) as error:
            raise SourceUnavailable(f"{_shown(url)} cannot be read: {error or type(error).__name__}.") from error
        finally:
            connection.close()
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


def _connect(url: str, allowed: Collection[str]) -> tuple[http.client.HTTPConnection, str]:
    refuse_unless_web(url)
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    address = addresses_of(host, port, allowed)[0]
    connection = http.client.HTTPConnection(host, port, timeout=SILENCE_S)
    try:
        raw = socket.create_connection((address, port), timeout=SILENCE_S)
        connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
    except OSError as error:
        raise SourceUnavailable(f"{_shown(url)} cannot be reached: {error}.") from error
    return connection, f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"


def _write(
    answer: http.client.HTTPResponse, target: Path, url: str, most_bytes: int, deadline: float, cancel: threading.Event
) -> None:
    declared = answer.getheader("Content-Length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise _too_large(url, most_bytes)
    left = most_bytes
    with target.open("wb") as file:
        while block := answer.read1(BLOCK):
            left -= len(block)
            if left < 0:
                raise _too_large(url, most_bytes)
            if cancel.is_set() or time.monotonic() > deadline:
                raise SourceUnavailable(f"{_shown(url)} did not arrive in time.")
            file.write(block)
    if declared.isdecimal() and most_bytes - left != int(declared):
        raise SourceUnavailable(f"{_shown(url)} broke off after {most_bytes - left} of {declared} bytes.")


def _too_large(url: str, most_bytes: int) -> SourceRefused:
    return SourceRefused(f"{_shown(url)} is larger than {most_bytes // (1 << 20)} MiB.")


def _shown(url: str) -> str:
    """Without the query, which may hold a signature."""
    return url.partition("?")[0]
