# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""An archive fetched over http or https: so many bytes, so many seconds, and not slower than a floor; no more."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from urllib.parse import urljoin

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.site_import.url import place_of, refused, shown

BLOCK = 1 << 16
MOST_BYTES = 4 << 30
MOST_SECONDS = 1200
ANSWER_SECONDS = 30
SLOWEST = 16 << 10
"""Bytes per second that a source must reach on average, once it had ``GRACE`` seconds."""
GRACE = 30
REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)


class Limits:
    """What a download may cost."""

    def __init__(self, most_bytes=MOST_BYTES, seconds=MOST_SECONDS, slowest=SLOWEST, grace=GRACE):
        self.most_bytes = most_bytes
        self.seconds = seconds
        self.slowest = slowest
        self.grace = grace


def fetch(url, path, allowed=(), limits=None):
    """Write what ``url`` gives to ``path``; its size. Each redirect is checked like the first address."""
    limits = limits or Limits()
    started = time.monotonic()
    for _ in range(REDIRECTS + 1):
        place = place_of(url, allowed)
        connection = _Connection(place, min(ANSWER_SECONDS, limits.seconds))
        try:
            response = _asked(connection, place, min(ANSWER_SECONDS, limits.seconds))
            if response.status in _MOVED and response.getheader("Location"):
                url = _redirected(url, response.getheader("Location"))
                continue
            _refuse_unless_found(response, limits)
            left = limits.seconds - (time.monotonic() - started)
            with _watched(connection.wire, left):
                return _written(response, path, limits, started)
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = str(error) or type(error).__name__
            raise failed(f"The archive at {shown(url)} could not be fetched: {why[:300]}.") from error
        finally:
            connection.close()
    raise refused(f"The archive's address leads on more than {REDIRECTS} times.")


def failed(message):
    return Failure(f"{message} Nothing was changed.", trueup_code="IMPORT_DOWNLOAD_FAILED")


class _Connection(http.client.HTTPConnection):
    """Goes to the addresses that were checked, whatever the name says by now."""

    def __init__(self, place, timeout):
        super().__init__(place.host, place.port, timeout=timeout)
        self.place = place
        self.wire = None
        """The socket, also once an answer has taken it over."""

    def connect(self):
        problem = None
        for address in self.place.addresses[:4]:
            try:
                self.sock = socket.create_connection((address, self.place.port), self.timeout)
                break
            except OSError as error:
                problem = error
        else:
            raise problem or OSError("no address")
        if self.place.scheme == "https":
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.place.host)
        self.wire = self.sock


@contextmanager
def _watched(sock, seconds):
    """Ends the connection after so many seconds, also where each byte comes in time."""

    def end():
        # It may have ended by itself.
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(seconds, 0.01), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _asked(connection, place, seconds):
    connection.connect()
    with _watched(connection.wire, seconds):
        connection.request("GET", place.target, headers={"Accept-Encoding": "identity", "User-Agent": "Trueup"})
        return connection.getresponse()


def _redirected(url, location):
    following = urljoin(url, location)
    if url.lower().startswith("https:") and not following.lower().startswith("https:"):
        raise refused("The archive's address leads on from https to something less.")
    return following


def _refuse_unless_found(response, limits):
    if response.status != 200:
        raise failed(f"The archive's address answered {response.status}. Check that it can be read by anybody.")
    size = response.getheader("Content-Length")
    if size is not None and not size.strip().isdigit():
        raise failed("The archive's source gives a length that is no number.")
    if size is not None and int(size) > limits.most_bytes:
        raise too_large(limits)


def too_large(limits):
    return Failure(
        f"The archive is larger than {limits.most_bytes >> 20} MiB. Leave out what a new home doesn't need, such as "
        "backups and caches. Nothing was changed.",
        trueup_code="ARCHIVE_TOO_LARGE",
    )


def _written(response, path, limits, started):
    said = response.getheader("Content-Length")
    chunked = "chunked" in (response.getheader("Transfer-Encoding") or "").lower()
    size = 0
    with open(path, "wb") as file:
        while block := response.read1(BLOCK):
            size += len(block)
            if size > limits.most_bytes:
                raise too_large(limits)
            seconds = time.monotonic() - started
            if seconds > limits.seconds:
                raise failed(f"The archive was not whole after {limits.seconds} s.")
            if seconds > limits.grace and size / seconds < limits.slowest:
                raise failed(f"The archive's source is too slow: {size} bytes in {seconds:.0f} s.")
            file.write(block)
    if said is not None and not chunked and size != int(said):
        raise failed(f"The archive's source ended after {size} of {said} bytes.")
    if time.monotonic() - started > limits.seconds:
        raise failed(f"The archive was not whole after {limits.seconds} s.")
    return size
