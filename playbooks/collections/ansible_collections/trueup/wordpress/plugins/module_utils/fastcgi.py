# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""One request to a PHP-FPM by its socket, as nginx would send it: FastCGI 1.0, responder role, nothing in the body."""

from __future__ import annotations

import socket
import struct
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import peer

_BEGIN, _END, _PARAMS, _STDIN, _STDOUT, _STDERR = 1, 3, 4, 5, 6, 7
_HEADER = struct.Struct(">BBHHBB")
_RESPONDER = 1
MOST_BYTES = 8 << 20


class Answer:
    """``status``, ``headers`` (names in lower case), ``body``, and what PHP said to its log meanwhile."""

    def __init__(self, output, errors):
        head, _, self.body = output.partition(b"\r\n\r\n")
        lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")]
        self.headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        self.status = int(self.headers.get("status", "200").split(" ")[0])
        self.errors = errors.decode("utf-8", "replace")


def request(path, user, parameters, timeout_s):
    """The answer to a GET with these CGI parameters; OSError when there is none within ``timeout_s``.

    Whatever else listens there than a process of ``user``, by name, is told nothing: a site can lead its path away.
    """
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(path)
        if not peer.is_of(connection, user):
            raise ConnectionRefusedError(f"What listens at {path} is not {user}'s")
        pairs = b"".join(_pair(name.encode(), value.encode()) for name, value in parameters.items())
        connection.sendall(
            _record(_BEGIN, struct.pack(">HB5x", _RESPONDER, 0))
            + b"".join(_record(_PARAMS, pairs[at : at + 65000]) for at in range(0, len(pairs), 65000))
            + _record(_PARAMS, b"")
            + _record(_STDIN, b"")
        )
        return Answer(*_read(connection, deadline))


def _read(connection, deadline):
    streams = {_STDOUT: bytearray(), _STDERR: bytearray()}
    while True:
        _, kind, _, length, padding, _ = _HEADER.unpack(_exactly(connection, _HEADER.size, deadline))
        content = _exactly(connection, length, deadline)
        _exactly(connection, padding, deadline)
        if kind == _END:
            return bytes(streams[_STDOUT]), bytes(streams[_STDERR])
        if kind in streams and len(streams[kind]) < MOST_BYTES:
            streams[kind] += content


def _exactly(connection, length, deadline):
    data = b""
    while len(data) < length:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("PHP did not answer in time")
        connection.settimeout(left)
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionError("PHP ended without an answer")
        data += part
    return data


def _record(kind, content):
    return _HEADER.pack(1, kind, 1, len(content), 0, 0) + content


def _pair(name, value):
    return _length(name) + _length(value) + name + value


def _length(data):
    return struct.pack(">B", len(data)) if len(data) < 128 else struct.pack(">I", len(data) | 0x80000000)
