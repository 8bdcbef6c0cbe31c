"""Half a request, two lengths, a byte at a time: a connection ends, and the request is refused or never was.

Where a client is too slow, with times of a fraction of a second in place of the real ones: only those that the test is
about, as this machine may rest for so long in the middle of any other. A test waits until the server has ended the
connection.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import uuid4

import pytest

from api.server import TimedProtocol
from tests.api.control import EMAIL, LOCAL, Control
from tests.api.server import listen, serving
from tests.controlplane import until
from tests.proof import sampled

HEAD = b"POST /api/sites HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
UPLOAD = b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
CLOSE = b"Connection: close\r\n"
SITE = json.dumps({"name": "Acme", "slug": "acme"}).encode()
CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SITE), SITE)
PATIENCE_S = 120.0
SHORT_S = {
    "head": {"head_s": 0.4},
    "head that comes": {"head_s": 1.5},
    "body": {"grace_s": 0.6, "look_s": 0.1},
    "answer": {"listen_s": 0.6},
}
Hurry = Callable[..., None]


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Hurry:
    """From now on the server waits for these only shortly: a head, a body, or that an answer is taken."""

    def _hurry(*what: str) -> None:
        for one in what:
            for name, seconds in SHORT_S[one].items():
                monkeypatch.setattr(TimedProtocol, name, seconds)

    return _hurry


@pytest.fixture
def address(control: Control) -> Iterator[tuple[str, int]]:
    listener = listen()
    with serving(control.app, listener):
        yield listener.getsockname()


@pytest.fixture
def cookie(control: Control) -> bytes:
    return b"Cookie: session_token=%s\r\n" % control.records.sessions.create(EMAIL, LOCAL, control.clock()).encode()


def ended(address: tuple[str, int], sent: bytes, drip: bytes = b"") -> bytes:
    """What the server says until it ends the connection, while ``drip`` comes again and again."""
    with socket.create_connection(address, PATIENCE_S) as client:
        return said_to(client, sent, drip)


def said_to(client: socket.socket, sent: bytes, drip: bytes = b"", every_s: float = 0.05) -> bytes:
    """The same on a connection that is there."""
    with suppress(ConnectionError):  # it is hung up on while it sends; what was said before that is there
        client.sendall(sent)
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(every_s):
            with suppress(OSError):
                client.sendall(drip)

    if drip:
        threading.Thread(target=go_on, daemon=True).start()
    said = b""
    try:
        while block := client.recv(1 << 16):
            said += block
    except ConnectionResetError:
        pass
    finally:
        done.set()
    return said


def heard(client: socket.socket, answer: bytes) -> bytes:
    """What the server says until an answer has begun so."""
    said = b""
    while len(said) < len(answer) and (block := client.recv(1 << 16)):
        said += block
    assert said.startswith(answer), said
    return said


LENGTH = b"Content-Length: 100\r\n\r\n"
HALF: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "a byte": (b"P", b""),
    "a byte at a time": (b"P", b"x"),
    "empty lines for ever": (b"\r\n", b"\r\n"),
    "half a head": (HEAD, b""),
    "a head that grows a header at a time": (HEAD, b"X-More: 1\r\n"),
    "a head without its last line": (HEAD + b"Content-Length: 0\r\n", b""),
    "no body": (HEAD + LENGTH, b""),
    "half a body": (HEAD + LENGTH + b'{"name":', b""),
    "a body a byte at a time": (HEAD + b"Content-Length: 60000\r\n\r\n", b" "),
    "half a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n10\r\nhalf", b""),
    "chunks of a byte for ever": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers for ever": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: 1\r\n"),
}


@pytest.mark.parametrize("what", sampled(HALF, short=3))
def test_half_a_request_is_not_waited_for(what: str, address: tuple[str, int], control: Control, hurry: Hurry) -> None:
    hurry("head", "body")
    first, drip = HALF[what]
    said = ended(address, first, drip)
    assert said.startswith(b"HTTP/1.1 4") or said == b"", said
    if said and not said.startswith(b"HTTP/1.1 400"):
        assert json.loads(said.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"
        assert b"Connection: close" in said
    assert control.state.fleet().sites == {}


def test_a_half_sent_request_after_a_whole_one_is_not_waited_for_either(address: tuple[str, int], hurry: Hurry) -> None:
    with socket.create_connection(address, PATIENCE_S) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard(client, b"HTTP/1.1 200")
        hurry("head")
        assert b"HTTP/1.1 408" in said_to(client, HEAD, drip=b"X-More: 1\r\n")


def test_an_upload_a_byte_at_a_time_ends_and_leaves_nothing(
    address: tuple[str, int], cookie: bytes, control: Control, hurry: Hurry
) -> None:
    hurry("body")
    said = ended(address, UPLOAD + cookie + b"Content-Length: 60000\r\n\r\n\x1f\x8b\x08\x00", drip=b"x")
    assert said.startswith(b"HTTP/1.1 408")
    assert said.count(b"HTTP/1.1") == 1
    directory = control.settings.home / "uploads"
    until(lambda: not list(directory.glob("*")) and not list(directory.glob(".*.part")), "the draft to go")


def test_a_request_that_was_answered_before_it_was_whole_is_not_answered_twice(
    address: tuple[str, int], hurry: Hurry
) -> None:
    hurry("body")
    said = ended(address, HEAD + b"Content-Length: 60000\r\n\r\n", drip=b" ")
    early = ended(address, HEAD + b"Content-Length: 99999999\r\n\r\n", drip=b" ")
    assert (said[:12], said.count(b"HTTP/1.1")) == (b"HTTP/1.1 408", 1)
    assert (early[:12], early.count(b"HTTP/1.1")) == (b"HTTP/1.1 413", 1)


def test_what_is_no_http_behind_an_answered_request_is_not_answered(address: tuple[str, int]) -> None:
    with socket.create_connection(address, PATIENCE_S) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n20000\r\n" + b"x" * 0x20000)
        early = heard(client, b"HTTP/1.1 413")
        early += said_to(client, b"\r\nno chunk\r\n")
    assert early.count(b"HTTP/1.1") == 1


def test_an_upload_that_comes_slowly_comes(address: tuple[str, int], cookie: bytes, hurry: Hurry) -> None:
    """Slower than all the times here, and not slower than a client may be, also if this machine rests meanwhile."""
    body = b"\x1f\x8b\x08\x00" + b"x" * 2_000_000
    hurry("head that comes", "body", "answer")
    with socket.create_connection(address, PATIENCE_S) as client:
        client.sendall(UPLOAD + cookie + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 50_000):
            client.sendall(body[start : start + 50_000])
            time.sleep(0.05)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 201")


def test_a_client_that_does_not_listen_is_gone(address: tuple[str, int], hurry: Hurry) -> None:
    """Requests without end, whose answers nobody takes."""
    hurry("answer")
    ask = b"GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(address, PATIENCE_S) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)

        def is_gone() -> bool:
            client.settimeout(0.1)
            try:
                client.sendall(ask * 100)
            except TimeoutError:
                return False
            except OSError:
                return True
            return False

        until(is_gone, "the server to hang up", PATIENCE_S)


TWO_LENGTHS = {
    "both": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(CHUNK),
    "both, the other way round": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    "both, in other letters": b"CONTENT-LENGTH: 0\r\ntransfer-encoding: Chunked\r\n\r\n",
    "two lengths": b"Content-Length: %d\r\nContent-Length: 4\r\n\r\n" % len(SITE),
    "two lengths in a line": b"Content-Length: %d, 4\r\n\r\n" % len(SITE),
    "a length with a sign": b"Content-Length: +%d\r\n\r\n" % len(SITE),
    "a length below nothing": b"Content-Length: -1\r\n\r\n",
    "no chunks": b"Transfer-Encoding: identity\r\n\r\n",
    "chunks, and what they are in": b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunks twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an encoding in disguise": b"Transfer-Encoding : chunked\r\n\r\n",
    "an unknown encoding": b"Transfer-Encoding: xchunked\r\n\r\n",
    "a header folded": b"X-More: 1\r\n Transfer-Encoding: chunked\r\nContent-Length: 1\r\n : x\r\n\r\n",
}


@pytest.mark.parametrize("what", TWO_LENGTHS)
def test_a_request_of_two_lengths_is_refused(
    what: str, address: tuple[str, int], cookie: bytes, control: Control
) -> None:
    """What stands behind it is never taken for a request of its own: the connection ends."""
    smuggled = b"DELETE /api/sites/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % str(uuid4()).encode()
    said = ended(address, HEAD + cookie + TWO_LENGTHS[what] + CHUNK + smuggled)
    assert said.startswith(b"HTTP/1.1 400"), said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["code"] == "invalid_request"
    assert said.count(b"HTTP/1.1") == 1
    assert b"connection: close" in said.lower()
    assert control.state.fleet().sites == {}


def test_chunks_of_an_older_protocol_are_refused(address: tuple[str, int], cookie: bytes, control: Control) -> None:
    head = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + cookie
    said = ended(address, head + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK)
    assert b" 400 " in said.partition(b"\r\n")[0]
    assert control.state.fleet().sites == {}


@pytest.mark.parametrize("length", [b"Content-Length: %d\r\n\r\n%s" % (len(SITE), SITE)])
def test_one_length_is_fine(length: bytes, address: tuple[str, int], cookie: bytes) -> None:
    assert ended(address, HEAD + CLOSE + cookie + length).startswith(b"HTTP/1.1 202")


def test_chunks_alone_are_fine(address: tuple[str, int], cookie: bytes) -> None:
    assert ended(address, HEAD + CLOSE + cookie + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK).startswith(
        b"HTTP/1.1 202"
    )


@pytest.mark.parametrize("head", [b"X-Long: " + b"x" * 2_000_000 + b"\r\n\r\n", b"X: 1\r\n" * 400_000 + b"\r\n"])
def test_a_head_without_end_is_refused(head: bytes, address: tuple[str, int]) -> None:
    said = ended(address, HEAD + head)
    assert said.startswith(b"HTTP/1.1 400") or said == b"", "the client is still sending when it is hung up on"
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert ended(address, ask).startswith(b"HTTP/1.1 200"), "and it serves on"
