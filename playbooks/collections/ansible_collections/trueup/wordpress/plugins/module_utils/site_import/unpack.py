# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""An archive from outside, unpacked member by member: nothing lands elsewhere, and nothing grows without end.

``.tar.gz`` and ``.zip`` are told apart by their first bytes. What is refused is refused with the member's name.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
import zlib

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.tree import Tree

MOST_BYTES = 4 << 30
MOST_MEMBERS = 250_000
DEEPEST = 64
BLOCK = 1 << 20


def refuse_unless_as_sent(what, archive):
    """Raise Failure unless the file at ``path`` has the ``sha256`` that the controller saw."""
    digest = hashlib.sha256()
    with open(archive["path"], "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != archive["sha256"]:
        raise Failure(f"{what} arrived with sha256 {digest.hexdigest()} instead of {archive['sha256']}. Run again.")


def unpack(archive, target, *, most_bytes=MOST_BYTES, most_members=MOST_MEMBERS):
    """Unpack into the empty directory ``target``.

    Links that stay inside are kept, modes become 0755 and 0644. Devices, hard links, links out of the tree, absolute
    names and ``..`` are a Failure (``ARCHIVE_UNSAFE``), as are more bytes or members than the limits
    (``ARCHIVE_TOO_LARGE``) and what is no whole archive (``ARCHIVE_INVALID``).
    """
    limits = _Limits(most_bytes, most_members)
    with Tree(target) as tree:
        links = _unpack_files(archive, Place(tree), limits, 2 * most_bytes)
        # Last, so that no member is ever written through a link.
        for name, to in links:
            _link(tree, name, to)


def _unpack_files(archive, place, limits, most_bytes):
    """Links are answered, not made."""
    try:
        with open(archive, "rb") as file:
            first = file.read(4)
        if first[:2] == b"\x1f\x8b":
            _refuse_unless_whole(archive, most_bytes)
            return _untar(archive, place, limits)
        if first == b"PK\x03\x04":
            return _unzip(archive, place, limits)
        raise _invalid("it is neither .tar.gz nor .zip")
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise _invalid(str(error) or type(error).__name__) from error


def _refuse_unless_whole(archive, most_bytes):
    """Read it to its checksum: a tar that breaks off between two members looks like one that ends there."""
    left = most_bytes
    with gzip.open(archive, "rb") as file:
        while block := file.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise Failure("The archive unpacks to more than a release may be.", trueup_code="ARCHIVE_TOO_LARGE")


class _Limits:
    def __init__(self, most_bytes, most_members):
        self.bytes, self.members = most_bytes, most_members

    def member(self):
        self.members -= 1
        if self.members < 0:
            raise Failure("The archive has more files than a release may have.", trueup_code="ARCHIVE_TOO_LARGE")

    def spend(self, size):
        self.bytes -= size
        if self.bytes < 0:
            raise Failure("The archive unpacks to more than a release may be.", trueup_code="ARCHIVE_TOO_LARGE")


def _untar(archive, place, limits):
    links = []
    with tarfile.open(archive, "r|gz", errorlevel=2) as tar:
        for member in tar:
            limits.member()
            # git archive writes the commit into a header of its own, which is no file.
            path = _path(member.name)
            if member.isdir():
                place.directory(path)
            elif member.isreg():
                limits.spend(member.size)
                place.write(tar.extractfile(member), path, limits=None, moment=member.mtime)
            elif member.issym():
                links.append((member.name, member.linkname))
            else:
                raise _unsafe(member.name, "is a device or a hard link")
    return links


def _unzip(archive, place, limits):
    links = []
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            limits.member()
            path = _path(member.filename)
            mode = member.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if member.is_dir():
                place.directory(path)
            elif kind == stat.S_IFLNK:
                with zipped.open(member) as file:
                    links.append((member.filename, file.read(4096).decode("utf-8", "surrogateescape")))
            elif kind in (0, stat.S_IFREG):
                with zipped.open(member) as file:
                    place.write(file, path, limits=limits)
            else:
                raise _unsafe(member.filename, "is a device")
    return links


def _path(name):
    """Where a member goes in the tree; the names of what an archive holds are never believed."""
    if not name or "\0" in name or "\\" in name:
        raise _unsafe(name, "has a name that cannot be")
    if name.startswith("/"):
        raise _unsafe(name, "is an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > DEEPEST or any(len(os.fsencode(part)) > 255 for part in parts):
        raise _unsafe(name, "leads out of the archive, or too deep")
    return "/".join(parts)


class Place:
    """Where the members go, and which directories are there by now."""

    def __init__(self, tree):
        self.tree = tree
        self.there = {""}

    def directory(self, path):
        if path in self.there:
            return
        try:
            self.tree.grow(path)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.EEXIST):
                raise
            raise _unsafe(path, "is both a file and a directory") from error
        self.there.add(path)

    def write(self, source, path, *, limits, moment=None):
        if path in self.there or self.tree.is_directory(path):
            raise _unsafe(os.path.basename(path), "is both a file and a directory")
        self.directory(os.path.dirname(path))
        with self.tree.create(path, os.O_TRUNC) as file:
            if limits is None:
                shutil.copyfileobj(source, file, BLOCK)
            else:
                # What a zip says of its sizes is the sender's word: count what comes out.
                while block := source.read(BLOCK):
                    limits.spend(len(block))
                    file.write(block)
            file.flush()
            if moment is not None and 0 < moment < 1 << 33:
                os.utime(file.fileno(), (moment, moment))


def _link(tree, name, to):
    path = _path(name)
    where = os.path.normpath(os.path.join(os.path.dirname(path), to))
    if os.path.isabs(to) or where == ".." or where.startswith("../"):
        raise _unsafe(name, "is a link out of the archive")
    if tree.status(path) is not None:
        raise _unsafe(name, "is there twice")
    try:
        if above := os.path.dirname(path):
            tree.grow(above)
        with tree.parent(path) as (parent, last):
            os.symlink(to, last, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST):
            raise
        raise _unsafe(name, "lies behind a link or a file") from error
    if not os.path.realpath(f"{tree.root}/{path}").startswith(f"{os.path.realpath(tree.root)}/"):
        raise _unsafe(name, "is a link out of the archive")


def _unsafe(name, why):
    return Failure(f"The archive's member {name[:200]!r} {why}. Nothing of it was used.", trueup_code="ARCHIVE_UNSAFE")


def _invalid(why):
    return Failure(f"The archive cannot be read: {why}. Nothing of it was used.", trueup_code="ARCHIVE_INVALID")
