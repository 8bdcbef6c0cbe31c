# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Streams to and from storage by addresses that carry their own permission, with the digest taken on the way."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from ansible_collections.trueup.wordpress.plugins.module_utils.dump import drained
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

TRIES = 3
TIMEOUT = 120
BLOCK = 1 << 20


class Sender:
    """Sends what a pipeline prints as the parts of one object."""

    def __init__(self, run, urls, part_bytes):
        self.run = run
        self.urls = urls
        self.buffer = bytearray(part_bytes)
        self.digest = hashlib.sha256()
        self.size = 0
        self.etags = []

    def send(self, pipeline, tail=bytes, explain=lambda _said: None, watch=lambda stream: stream):
        """``etags``, ``sha256`` and ``size_bytes`` of the object; the pipeline's commands must all succeed.

        ``tail``: called when all of them have, and answers what comes behind what they printed. ``explain``: is told
        what commands that failed said, and may raise a Failure that says it better. ``watch``: is given what the first
        command prints, and answers what the next one reads instead.
        """
        filled = self._pipeline(pipeline, explain, watch)
        rest = memoryview(tail())
        while rest:
            taken = min(len(rest), len(self.buffer) - filled)
            self.buffer[filled : filled + taken] = rest[:taken]
            rest, filled = rest[taken:], filled + taken
            if filled == len(self.buffer):
                self._part(memoryview(self.buffer))
                filled = 0
        if filled:
            self._part(memoryview(self.buffer)[:filled])
        return {"etags": self.etags, "sha256": self.digest.hexdigest(), "size_bytes": self.size}

    def _pipeline(self, pipeline, explain, watch):
        """Send whole parts of what is printed; how much of the buffer the rest fills."""
        processes = self._start(pipeline, watch)
        stream = processes[-1].stdout
        # A site has as much said of its files as it likes: nobody waits for it to be heard, nor keeps all of it.
        with ThreadPoolExecutor(len(processes)) as pool:
            said = [pool.submit(drained, process.stderr) for process in processes]
            try:
                while (length := self._fill(stream)) == len(self.buffer):
                    self._part(memoryview(self.buffer))
            finally:
                stream.close()
                self._end(processes, said, explain)
        return length

    def _start(self, pipeline, watch):
        processes = []
        for argv in pipeline:
            feed = processes[-1].stdout if processes else None
            if len(processes) == 1:
                feed = watch(feed)
            processes.append(self.run.start(argv, feed=feed))
            if feed:
                feed.close()
        return processes

    def _end(self, processes, said, explain):
        for process in processes:
            if process.stdin:
                process.stdin.close()
        said = [one.result().decode("utf-8", "replace").strip() for one in said]
        status = [process.wait() for process in processes]
        # tar says 1 where a file changed while it was read, which a living site's do.
        bad = [s for process, s in zip(processes, status) if s and not ("tar" in process.args and s == 1)]  # noqa: B905
        if bad:
            explain(" ".join(said))
            raise Failure(f"What was to be sent could not be read ({status}): {' '.join(said)[-1000:]}")

    def _fill(self, stream):
        view, length = memoryview(self.buffer), 0
        while length < len(self.buffer):
            count = stream.readinto(view[length:])
            if not count:
                break
            length += count
        return length

    def _part(self, data):
        if len(self.etags) == len(self.urls):
            raise Failure("There is more to send than was measured before. Run it again.")
        self.digest.update(data)
        self.size += len(data)
        self.etags.append(put(self.urls[len(self.etags)], data))


def put(url, data):
    """The etag of a part that the storage has taken."""
    return _repeated(url, "PUT", lambda connection, path: _put(connection, path, data))


def _put(connection, path, data):
    connection.request("PUT", path, body=data, headers={"Content-Length": str(len(data))})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers.get("ETag", "")


def download(url, path, wanted):
    """Download an object to ``path`` and hold it against its size and sha256."""
    digest, size = hashlib.sha256(), 0

    def fetch(connection, place):
        nonlocal digest, size
        digest, size = hashlib.sha256(), 0
        connection.request("GET", place)
        answer = connection.getresponse()
        if answer.status != 200:
            answer.read()
            return answer.status, None
        with _here(open, path, "wb", 0) as file:
            while block := answer.read(BLOCK):
                size += len(block)
                if size > wanted["size_bytes"]:
                    break
                digest.update(block)
                _here(_write, file, block)
        # A connection that ends early says so nowhere else, and is no object that is too short.
        if size <= wanted["size_bytes"] and answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        return 200, ""

    _repeated(url, "GET", fetch)
    if size != wanted["size_bytes"] or digest.hexdigest() != wanted["sha256"]:
        os.unlink(path)
        raise Failure(
            f"{os.path.basename(path)} in the storage is not what was backed up. Nothing was changed. "
            "Choose another backup.",
            trueup_code="BACKUP_DAMAGED",
        )


def _here(work, *arguments):
    """What ``work`` answers; where it is the node's disk that fails, it is no storage that does."""
    try:
        return work(*arguments)
    except OSError as error:
        raise Failure(
            f"The node's disk did not take what was downloaded: {error}. Look at it, and free some."
        ) from error


def _write(file, block):
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _repeated(url, verb, work):
    """Try a few times; the address itself stays out of every message, because it is a permission."""
    parts, said = urlsplit(url), ""
    path = f"{parts.path}?{parts.query}"
    for attempt in range(TRIES):
        time.sleep(attempt)
        connection = _connection(parts)
        try:
            status, answer = work(connection, path)
            if status == 200:
                return answer
            said = f"status {status}"
            if status in (403, 404):
                break
        except (OSError, http.client.HTTPException) as error:
            said = type(error).__name__
        finally:
            connection.close()
    code = "BACKUP_FAILED"
    if verb == "GET":
        code = "BACKUP_DAMAGED" if said == "status 404" else "STORAGE_UNAVAILABLE"
    raise Failure(f"The storage {parts.netloc} did not take part in a {verb}: {said}.", trueup_code=code)


def _connection(parts):
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT, context=ssl.create_default_context())
    return http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
