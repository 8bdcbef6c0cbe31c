# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""An export of a site (``db.sql``, ``files/``, ``meta.json``), read twice: once to judge it whole, once to unpack it.

Judging writes nothing and needs the same memory for every archive.
"""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
import zlib
from urllib.parse import urlsplit

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.site_import.sql import Dump
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.tree import Tree

BLOCK = 1 << 16
LARGEST_HEADER = 1 << 20
LARGEST_META = 64 << 10
LARGEST_RATIO = 100
"""Unpacked to packed. Text packs 5 to 30 times; zeros pack 1000 times."""
RATIO_FROM = 64 << 20
DEEPEST = 64
PARTS = ("plugins", "themes", "mu-plugins", "uploads")
LEFT_OUT = ("object-cache.php", "advanced-cache.php", "db.php", "sunrise.php", "wp-config.php")
"""At the top of ``files/``: what belongs to the host that the site left."""


class Limits:
    """What an archive may unpack to."""

    def __init__(self, most_bytes=20 << 30, most_members=500_000):
        self.most_bytes = most_bytes
        self.most_members = most_members


class Export:
    """What an archive was found to hold."""

    def __init__(self):
        self.files_bytes = 0
        self.database_bytes = 0
        self.members = 0
        self.left_out = []
        self.prefix = None
        self.source_url = None


def judged(path, limits=None):
    """An Export, when all of it is as it should be; otherwise a Failure with the code that says what is not."""
    export, dump, seen = Export(), None, set()
    parts = set()
    for names, kind, size, content in _members(path, limits or Limits()):
        export.members += 1
        where = "/".join(names)
        if kind == "file":
            if names[0] in ("db.sql", "meta.json") and len(names) == 1:
                if where in seen:
                    raise unsafe(where, "is there twice")
                seen.add(where)
            if where == "db.sql":
                export.database_bytes = size
                dump = Dump()
                for block in content:
                    dump.feed(block)
                dump.end()
            elif where == "meta.json":
                export.source_url = _source_url(content, size)
            elif names[0] == "files":
                export.files_bytes += size
                if len(names) == 2 and names[1] in LEFT_OUT:
                    export.left_out.append(names[1])
        if names[0] == "files" and len(names) > 1 and names[1] in PARTS and (kind == "directory" or len(names) > 2):
            parts.add(names[1])
    if dump is None:
        raise incomplete("has no db.sql at its top")
    if not parts:
        raise incomplete("has no files/ with plugins, themes, mu-plugins or uploads in it")
    export.prefix = dump.prefix()
    return export


def unpack(path, target, limits=None):
    """``db.sql`` and ``files/`` into the empty directory ``target``, but for what belongs to the former host."""
    there = set()
    with Tree(target) as tree:
        for names, kind, _, content in _members(path, limits or Limits()):
            if names != ("db.sql",) and (names[0] != "files" or (len(names) == 2 and names[1] in LEFT_OUT)):
                continue
            where = "/".join(names if kind == "directory" else names[:-1])
            try:
                if where and where not in there:
                    tree.grow(where)
                    there.add(where)
                if kind == "directory":
                    continue
                with tree.create("/".join(names)) as file:
                    for block in content:
                        file.write(block)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise unsafe("/".join(names), "is there twice") from error


def invalid(why):
    return Failure(f"The archive is not a whole .tar.gz: {why}. Nothing was changed.", trueup_code="ARCHIVE_INVALID")


def unsafe(name, why):
    return Failure(f"The archive's member {name[:200]!r} {why}. Nothing of it was used.", trueup_code="ARCHIVE_UNSAFE")


def incomplete(why):
    return Failure(
        f"The archive {why}. It must hold db.sql and files/, a wp-content. Nothing was changed.",
        trueup_code="ARCHIVE_INCOMPLETE",
    )


def _bomb():
    return Failure(
        f"The archive unpacks to more than {LARGEST_RATIO} times its size, as no site does. Nothing was changed.",
        trueup_code="ARCHIVE_BOMB",
    )


def _members(path, limits):
    """(names, kind, size, blocks) of each member, in the archive's order, each checked."""
    with _readable(), open(path, "rb") as file:
        stream = _Unzipped(file, os.fstat(file.fileno()).st_size, limits)
        tar = tarfile.open(fileobj=stream, mode="r:", errorlevel=2)  # noqa: SIM115 - the stream is closed
        count = 0
        while (member := tar.next()) is not None:
            tar.members.clear()
            count += 1
            if count > limits.most_members:
                raise Failure(
                    f"The archive has more than {limits.most_members} members. Nothing was changed.",
                    trueup_code="ARCHIVE_TOO_LARGE",
                )
            names = _names(member.name)
            kind = _kind(member)
            if not names:
                continue
            if member.size > limits.most_bytes:
                raise _over(limits)
            yield names, kind, member.size, _blocks(tar, member) if kind == "file" else ()
        # For tarfile a broken header is an end like any other.
        if stream.last.strip(b"\0"):
            raise tarfile.ReadError("it has a broken header")
        stream.drain()


@contextlib.contextmanager
def _readable():
    try:
        yield
    except (tarfile.TarError, zlib.error, EOFError, RecursionError, ValueError, OverflowError) as error:
        raise invalid(str(error) or type(error).__name__) from error


def _names(name):
    """Where a member lies; what an archive says is never believed."""
    if not name or "\0" in name or "\\" in name:
        raise unsafe(name, "has a name that cannot be")
    if name.startswith("/"):
        raise unsafe(name, "is an absolute path")
    names = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in names:
        raise unsafe(name, "leads out of the archive")
    if len(names) > DEEPEST or any(len(os.fsencode(part)) > 255 for part in names):
        raise unsafe(name, "lies too deep or has too long a name")
    return names


def _kind(member):
    if member.isdir():
        return "directory"
    if member.issym() or member.islnk():
        raise unsafe(member.name, "is a link")
    if not member.isreg() or member.issparse():
        raise unsafe(member.name, "is neither a file nor a directory")
    return "file"


def _blocks(tar, member):
    file = tar.extractfile(member)
    left = member.size
    while left:
        with _readable():
            block = file.read(min(BLOCK, left))
            if not block:
                raise EOFError("it ends in the middle of a file")
        left -= len(block)
        yield block


def _source_url(blocks, size):
    if size > LARGEST_META:
        raise incomplete("has a meta.json larger than 64 KiB")
    try:
        found = json.loads(b"".join(blocks).decode("utf-8"))
        url = found.get("source_url")
        if url is None:
            return None
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        if not good or "@" in parts.netloc or len(url) > 500 or any(c <= " " for c in url):
            raise ValueError("source_url is no address")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise incomplete('has a meta.json that is not {"source_url": "https://…"}') from error
    return url.rstrip("/")


def _over(limits):
    return Failure(
        f"The archive unpacks to more than {limits.most_bytes >> 20} MiB. Nothing was changed.",
        trueup_code="ARCHIVE_TOO_LARGE",
    )


class _Unzipped:
    """The gzip's content as tarfile reads it, forwards only; it counts what comes out against what went in."""

    def __init__(self, file, packed, limits):
        self.file = file
        self.packed = packed
        self.limits = limits
        self.place = 0
        self.out = 0
        self.buffer = b""
        self.last = b""
        if file.read(2) != b"\x1f\x8b":
            raise invalid("it does not begin like gzip")
        file.seek(0)
        self.unzip = zlib.decompressobj(31)

    def tell(self):
        return self.place

    def seek(self, place, _whence=0):
        if place < self.place:
            raise tarfile.ReadError("it would have to be read backwards")
        while self.place < place:
            if not self.read(min(BLOCK, place - self.place)):
                break
        return self.place

    def read(self, size=-1):
        if size < 0 or size > LARGEST_HEADER:
            raise tarfile.ReadError("it has a header larger than a header can be")
        parts, left = [], size
        while left and (self.buffer or self._more()):
            part, self.buffer = self.buffer[:left], self.buffer[left:]
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        self.place += len(data)
        self.last = data
        return data

    def drain(self):
        """To the very end: what follows the tar's own end must still be a whole gzip."""
        while self._more():
            self.buffer = b""

    def _more(self):
        """Fill the buffer; False at the end. Gzips may follow each other, and zeros the last one."""
        while True:
            if self.unzip.eof:
                data = self.unzip.unused_data.lstrip(b"\0")
                while not data and (block := self.file.read(BLOCK)):
                    data = block.lstrip(b"\0")
                if not data:
                    return False
                self.unzip = zlib.decompressobj(31)
            else:
                data = self.unzip.unconsumed_tail or self.file.read(BLOCK)
            self.buffer = self.unzip.decompress(data, BLOCK)
            if self.buffer:
                self.out += len(self.buffer)
                self._weigh()
                return True
            if not data and not self.unzip.eof:
                raise EOFError("it ends too early")

    def _weigh(self):
        if self.out > self.limits.most_bytes + (self.limits.most_members << 10):
            raise _over(self.limits)
        if self.out > RATIO_FROM and self.out > self.packed * LARGEST_RATIO:
            raise _bomb()
