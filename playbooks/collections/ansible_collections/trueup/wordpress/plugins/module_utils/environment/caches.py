# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Empties the two caches of one environment: pages that nginx keeps in files, objects that WordPress keeps in Redis.

An environment has a Redis of its own. One that was last applied by an earlier version keeps its objects in the node's,
under its prefix, until it is applied again.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import peer

SHARED = "/run/redis/redis-server.sock"
SHARED_USER = "redis"
PATIENCE_S = 10
MOST_LINE = 4096
MOST_BYTES = 16 << 20
MOST_ITEMS = 10_000
_AWAY = (FileNotFoundError, ConnectionRefusedError)


class RedisError(Exception):
    """Redis answered with an error, or not at all."""


class Redis:
    """A connection that speaks Redis's own protocol with the server of ``user``.

    A site can put anything in the place of its own server: nobody else's is spoken to, and answers have bounds.
    OSError where there is no server.
    """

    def __init__(self, path, user):
        self.deadline = time.monotonic() + PATIENCE_S
        self.left = MOST_BYTES
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connection.settimeout(PATIENCE_S)
        try:
            self.connection.connect(path)
            if not peer.is_of(self.connection, user):
                raise RedisError(f"What answers on {path} is not {user}'s.")
        except BaseException:
            self.connection.close()
            raise
        self.answers = self.connection.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answers.close()
        self.connection.close()

    def call(self, *words):
        """The answer: bytes, a number, None, or a list of them."""
        data = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        lines = [b"*%d" % len(data)]
        for word in data:
            lines += [b"$%d" % len(word), word]
        self.left = MOST_BYTES
        try:
            self.connection.sendall(b"\r\n".join(lines) + b"\r\n")
            return self._answer(0)
        except OSError as error:
            raise RedisError(f"Redis stopped answering: {error}") from error

    def size(self):
        """How many keys there are."""
        found = self.call("DBSIZE")
        if not isinstance(found, int):
            raise RedisError("Redis does not say how many keys it has.")
        return found

    def _answer(self, depth):
        line = self._within_bounds(MOST_LINE, self.answers.readline)
        if not line.endswith(b"\r\n"):
            raise RedisError("Redis closed the connection, or says more than it should.")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RedisError(rest.decode("utf-8", "replace"))
        if kind == b"+":
            return rest
        if kind == b":":
            return _number(rest, 1 << 53)
        if kind == b"$":
            return None if rest == b"-1" else self._within_bounds(_number(rest, self.left) + 2, self.answers.read)[:-2]
        if kind == b"*" and depth < 2:
            return [self._answer(depth + 1) for _ in range(_number(rest, MOST_ITEMS))]
        raise RedisError("Redis answered with something that is not in its protocol.")

    def _within_bounds(self, most, read):
        left = self.deadline - time.monotonic()
        if left <= 0 or self.left <= 0:
            raise RedisError("Redis's answer is late, or too large.")
        self.connection.settimeout(left)
        data = read(most)
        self.left -= len(data)
        return data


def _number(text, most):
    if not re.fullmatch(rb"[0-9]{1,19}", text) or int(text) > most:
        raise RedisError("Redis answered with something that is no number, or too large a one.")
    return int(text)


def forget(layout):
    """Remove all objects of an environment; how many there were."""
    if not _has_its_own(layout):
        return forget_shared(layout)
    # One that does not run keeps nothing.
    with contextlib.suppress(*_AWAY), Redis(layout.redis_socket, layout.user) as redis:
        found = redis.size()
        redis.call("FLUSHDB")
        return found
    return 0


def count_objects(layout):
    """How many objects are kept of an environment."""
    if not _has_its_own(layout):
        return count_shared(layout)
    with contextlib.suppress(*_AWAY), Redis(layout.redis_socket, layout.user) as redis:
        return redis.size()
    return 0


def _has_its_own(layout):
    return os.path.exists(layout.unit_file(layout.redis_service))


def forget_shared(layout):
    """Remove all objects that the node's Redis keeps of an environment; how many there were."""
    with contextlib.suppress(*_AWAY), Redis(SHARED, SHARED_USER) as redis:
        return sum(redis.call("UNLINK", *keys) for keys in _scan(redis, layout.redis_prefix))
    return 0


def count_shared(layout):
    with contextlib.suppress(*_AWAY), Redis(SHARED, SHARED_USER) as redis:
        return sum(len(keys) for keys in _scan(redis, layout.redis_prefix))
    return 0


def _scan(redis, prefix):
    """The keys that begin with ``prefix``, a handful at a time."""
    pattern = re.sub(r"([*?\[\]\\^-])", r"\\\1", prefix) + "*"
    cursor = None
    while cursor != b"0":
        cursor, keys = redis.call("SCAN", cursor or b"0", "MATCH", pattern, "COUNT", 1000)
        if keys:
            yield keys


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
