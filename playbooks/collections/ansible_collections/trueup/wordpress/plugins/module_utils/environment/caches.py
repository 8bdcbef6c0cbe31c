# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Empties the two caches of one environment: pages that nginx keeps in files, objects that WordPress keeps in Redis."""

from __future__ import annotations

import contextlib
import os
import re
import socket

SOCKET = "/run/redis/redis-server.sock"


class RedisError(Exception):
    """Redis answered with an error, or not at all."""


class Redis:
    """A connection that speaks Redis's own protocol."""

    def __init__(self, path=SOCKET, timeout=10):
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connection.settimeout(timeout)
        try:
            self.connection.connect(path)
        except OSError as error:
            self.connection.close()
            raise RedisError(f"Redis does not answer on {path}: {error}") from error
        self.answers = self.connection.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answers.close()
        self.connection.close()

    def call(self, *words):
        data = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        lines = [b"*%d" % len(data)]
        for word in data:
            lines += [b"$%d" % len(word), word]
        try:
            self.connection.sendall(b"\r\n".join(lines) + b"\r\n")
            return self._answer()
        except OSError as error:
            raise RedisError(f"Redis stopped answering: {error}") from error

    def _answer(self):
        line = self.answers.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RedisError(rest.decode("utf-8", "replace"))
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.answers.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        raise RedisError("Redis closed the connection.")


def forget(prefix):
    """Remove every key that begins with ``prefix``; how many there were."""
    with Redis() as redis:
        return sum(redis.call("UNLINK", *keys) for keys in _scan(redis, prefix))


def _scan(redis, prefix):
    """The keys that begin with ``prefix``, a handful at a time."""
    pattern = re.sub(r"([*?\[\]\\^-])", r"\\\1", prefix) + "*"
    cursor = None
    while cursor != b"0":
        cursor, keys = redis.call("SCAN", cursor or b"0", "MATCH", pattern, "COUNT", 1000)
        if keys:
            yield keys


def count_objects(prefix):
    with Redis() as redis:
        return sum(len(keys) for keys in _scan(redis, prefix))


# Pages


def count(directory):
    """How many pages nginx keeps."""
    return sum(1 for _ in _pages(directory))


def empty(directory):
    """Remove every kept page; how many there were. nginx takes a page that vanished for one that it never had."""
    removed = 0
    for path in _pages(directory):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            removed += 1
    return removed


def _pages(directory):
    for parent, _, names in os.walk(directory):
        yield from (os.path.join(parent, name) for name in names)
