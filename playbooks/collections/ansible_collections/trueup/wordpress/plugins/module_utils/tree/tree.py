# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""All work of root's on files that lie where a site's user can write: no path of theirs is ever believed.

A ``Tree`` is a directory that root owns, with everything above it. What is beneath is reached from its descriptor
alone: ``openat2`` resolves no link and never leaves the directory, a walk goes from descriptor to descriptor. Only
regular files are opened, none of them blocks, and an inode that has another name elsewhere is neither changed nor,
unless it is the site's own, read. What is exchanged while it is read, or is no file, is left out and told in
``skipped``: no site can stop its own jobs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ansible_collections.trueup.wordpress.plugins.module_utils.tree import descriptors
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.copy import Copy
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.descriptors import (
    ALWAYS,
    DEEPEST,
    DIRECTORY,
    GONE,
    LARGEST,
    blocks,
    digest_of,
    draft_of,
    is_own,
    kind_of,
    open_beneath,
    opened,
    refuse_shared,
)
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.remove import remove

MOST_READ = 64 << 20
"""Bytes of a file that is read whole."""
MOST_ENTRIES = 2_000_000
MOST_TOLD = 50


class Tree:
    """A directory of root's, open while the ``with`` lasts; names are relative to it, and ``""`` is itself."""

    def __init__(self, root, *, most=MOST_ENTRIES):
        self.root = root
        self.handle = -1
        self.left = most
        self.skipped = []
        self.more_skipped = 0

    def __enter__(self):
        self.handle = os.open(self.root, DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_):
        os.close(self.handle)
        self.handle = -1

    def skip(self, name, why):
        """Note that something is left out."""
        if len(self.skipped) < MOST_TOLD:
            self.skipped.append(f"{name}: {why}")
        else:
            self.more_skipped += 1

    def told(self):
        """A sentence about what was left out; empty where nothing was."""
        if not self.skipped:
            return ""
        more = f" and {self.more_skipped} more" if self.more_skipped else ""
        return f"Left out of {self.root}: {'; '.join(self.skipped)}{more}."

    # One name

    def open(self, name, flags, mode=0):
        """A descriptor of what ``name`` is; OSError where it is a link, or lies behind one."""
        name = name or "."
        for _ in range(8):
            try:
                return open_beneath(self.handle, name, flags | ALWAYS, mode)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
        raise OSError(errno.EAGAIN, "is being moved all the time", name)

    @contextlib.contextmanager
    def parent(self, name):
        """The descriptor of the directory that ``name`` lies in, and its last part."""
        where, _, last = name.rpartition("/")
        if last in ("", ".", ".."):
            raise ValueError(f"{name!r} names nothing in {self.root}.")
        with opened(self.open(where, os.O_PATH | os.O_DIRECTORY)) as handle:
            yield handle, last

    def status(self, name):
        """``os.stat_result`` of what is there, a link for itself; None where nothing is."""
        try:
            with opened(self.open(name, os.O_PATH)) as handle:
                return os.fstat(handle)
        except OSError as error:
            if error.errno not in GONE:
                raise
        try:
            with self.parent(name) as (handle, last):
                return os.stat(last, dir_fd=handle, follow_symlinks=False)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise

    def is_directory(self, name):
        found = self.status(name)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def is_file(self, name):
        found = self.status(name)
        return found is not None and stat.S_ISREG(found.st_mode)

    def names(self, name=""):
        """What is in a directory, sorted; nothing where there is none."""
        try:
            with opened(self.open(name, DIRECTORY)) as handle:
                return sorted(os.listdir(handle))
        except OSError as error:
            if error.errno in GONE:
                return []
            raise

    def read(self, name, most=MOST_READ):
        """The bytes of a regular file; None where there is none, or more than ``most`` bytes."""
        with self.file(name) as handle:
            if handle is None or os.fstat(handle).st_size > most:
                return None
            data = b"".join(blocks(handle, most + 1))
            return data if len(data) <= most else None

    def digest(self, name):
        """sha256 in hex of a regular file; None where there is none, or one of more than 64 GiB."""
        with self.file(name) as handle:
            return None if handle is None else digest_of(handle)

    def digest_behind(self, name):
        """The same of what a link leads to, if that lies beneath this directory, too."""
        try:
            handle = open_beneath(self.handle, name, os.O_RDONLY | ALWAYS & ~os.O_NOFOLLOW, 0, links=True)
        except OSError:
            return None
        with opened(handle):
            found = os.fstat(handle)
            is_readable = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= LARGEST
            return digest_of(handle) if is_readable else None

    @contextlib.contextmanager
    def file(self, name):
        """A descriptor for reading a regular file; None where there is none."""
        try:
            handle = self.open(name, os.O_RDONLY)
        except OSError as error:
            if error.errno not in GONE:
                raise
            yield None
            return
        with opened(handle):
            yield handle if stat.S_ISREG(os.fstat(handle).st_mode) else None

    def replace(self, name, data, mode, uid=0, gid=0):
        """Put a file there by a rename: a reader, or a crash, sees the old one or the new one."""
        with self.parent(name) as (parent, last):
            draft = draft_of(last)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | ALWAYS
            try:
                with os.fdopen(os.open(draft, flags, 0o600, dir_fd=parent), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    os.fchown(file.fileno(), uid, gid)
                    os.fchmod(file.fileno(), mode)
                os.rename(draft, last, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=parent)
                raise

    def link(self, name, target):
        """Put a symbolic link there by a rename: there is no moment without it."""
        with self.parent(name) as (parent, last):
            draft = draft_of(last)
            os.symlink(target, draft, dir_fd=parent)
            try:
                os.rename(draft, last, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                os.unlink(draft, dir_fd=parent)
                raise

    def target(self, name):
        """Where a link leads, as it says; None where there is no link."""
        try:
            with self.parent(name) as (parent, last):
                return os.readlink(last, dir_fd=parent)
        except OSError as error:
            if error.errno in GONE or error.errno == errno.EINVAL:
                return None
            raise

    def directory(self, name, mode=0o755, uid=0, gid=0):
        """Have a directory there with this owner and mode; those above it are root's where they are lacking."""
        parts = [part for part in name.split("/") if part]
        for count in range(1, len(parts)):
            self._make("/".join(parts[:count]), 0o755)
        if parts:
            self._make(name, 0o700)
        self.set(name, mode, uid, gid)

    def grow(self, name):
        """Have a directory there, and those above it; OSError where a file or a link is in the place of one."""
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            self._make("/".join(parts[:count]), 0o755)
        os.close(self.open(name, os.O_PATH | os.O_DIRECTORY))

    @contextlib.contextmanager
    def create(self, name, flags=os.O_EXCL):
        """A new file, open for writing; with ``O_TRUNC`` instead, one that is there is emptied."""
        handle = self.open(name, os.O_WRONLY | os.O_CREAT | flags, 0o644)
        with os.fdopen(handle, "wb") as file:
            yield file

    def room(self, name):
        """Have the directories above a name, in the place of whatever else is there."""
        parts = name.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            above = "/".join(parts[:count])
            if not self.is_directory(above):
                self.remove(above)
                self._make(above, 0o755)

    def _make(self, name, mode):
        with self.parent(name) as (parent, last), contextlib.suppress(FileExistsError):
            os.mkdir(last, mode, dir_fd=parent)

    def set(self, name, mode, uid, gid):
        """Give a file or directory its owner and mode. An inode with several names is an OSError (EMLINK)."""
        with opened(self.open(name, os.O_RDONLY)) as handle:
            refuse_shared(handle, name)
            os.fchown(handle, uid, gid)
            os.fchmod(handle, mode)

    # All that is beneath a name

    def walk(self, name="", leave_out=()):
        """``(path, entry's directory, entry's name, kind)`` of all beneath a directory, what is in one before itself.

        The descriptor of the directory is good until the next step. ``kind`` is ``stat.S_IFMT`` of the entry.
        ``leave_out``: names at the top.
        """
        try:
            handle = self.open(name, DIRECTORY)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return
        with opened(handle):
            yield from self._beneath(handle, "", 1, leave_out)

    def _beneath(self, handle, prefix, depth, leave_out=()):
        for name, kind in self.entries(handle, leave_out):
            path = f"{prefix}{name}"
            if kind == stat.S_IFDIR:
                try:
                    inner = self.inside(handle, name, path, depth)
                except OSError as error:
                    self.pass_over(path, error)
                    continue
                if inner is not None:
                    with opened(inner):
                        yield from self._beneath(inner, f"{path}/", depth + 1)
            yield path, handle, name, kind

    def entries(self, handle, leave_out=()):
        """``(name, kind)`` of what is in a directory, sorted: the order is nobody's to choose."""
        found = []
        with os.scandir(handle) as entries:
            for entry in entries:
                self.left -= 1
                if self.left < 0:
                    raise OSError(errno.EFBIG, "has more files than any site may have", self.root)
                if entry.name not in leave_out:
                    found.append((entry.name, kind_of(entry)))
        return sorted(found)

    def inside(self, handle, name, path, depth):
        if depth >= DEEPEST:
            self.skip(path, "lies too deep")
            return None
        return os.open(name, DIRECTORY | ALWAYS, dir_fd=handle)

    def pass_over(self, path, error):
        """An entry that was exchanged under our hands is left out; any other error is one."""
        if error.errno not in GONE:
            raise error
        self.skip(path, "changed while it was read")

    def digests(self, name="", leave_out=(), *, shared=False):
        """``(path, sha256)`` of the regular files beneath, and ``(path, "-> target")`` of the links.

        ``shared``: all of it is root's, so its files may have other names elsewhere.
        """
        for path, handle, last, kind in self.walk(name, leave_out):
            try:
                if kind == stat.S_IFLNK:
                    yield path, f"-> {os.readlink(last, dir_fd=handle)}"
                elif kind == stat.S_IFREG:
                    with self.readable(handle, last, path, shared=shared) as file:
                        found = None if file is None else digest_of(file)
                    if found is not None:
                        yield path, found
                elif kind != stat.S_IFDIR:
                    self.skip(path, "is neither a file nor a directory")
            except OSError as error:
                self.pass_over(path, error)

    @contextlib.contextmanager
    def readable(self, directory, name, path, *, shared=False):
        """A descriptor of a file in a site's tree, or None and a note."""
        with opened(os.open(name, os.O_RDONLY | ALWAYS, dir_fd=directory)) as handle:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                self.skip(path, "changed while it was read")
                yield None
            elif found.st_nlink > 1 and not shared and not is_own(found, os.fstat(directory)):
                self.skip(path, "has another name elsewhere, and is not the site's own")
                yield None
            elif found.st_size > LARGEST:
                self.skip(path, "is larger than any file may be")
                yield None
            else:
                yield handle

    def own(self, name, uid, gid):
        """Give a directory and all in it to somebody, itself last. A shared inode keeps its owner, and is told.

        No link becomes root's: nginx would follow it to all that root lets it read.
        """
        for path, handle, last, kind in self.walk(name):
            if kind == stat.S_IFLNK and uid == 0:
                continue
            try:
                descriptors.own(handle, last, kind, uid, gid)
            except OSError as error:
                if error.errno != errno.EMLINK:
                    self.pass_over(path, error)
                else:
                    self.skip(path, "has another name elsewhere, so its owner stays")
        with opened(self.open(name, DIRECTORY)) as handle:
            os.fchown(handle, uid, gid)

    def remove(self, name):
        """Remove whatever is there, however deep. What appears meanwhile goes with it, or is an OSError in the end."""
        for _ in range(3):
            try:
                with self.parent(name) as (parent, last):
                    return remove(parent, last)
            except OSError as error:
                # Where another thing is in the place of a directory above it, it is not there.
                if error.errno in GONE and not self.is_directory(name.rpartition("/")[0]):
                    return None
                if error.errno not in (errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
                    raise
                failed = error
        raise failed

    def copy(self, name, other, target, *, leave_out=(), keep=None, shared=False):
        """Copy a directory, file or link to ``target`` of the Tree ``other``, where no site's user can write.

        Modes and times stay; all is root's but for what belongs to the uid ``keep``. Links are copied as they are.
        A directory that is there is filled. ``leave_out``: names at the top. ``shared``: the source is root's, so its
        files may have other names elsewhere.
        """
        Copy(self, keep, shared).run(name, other, target, leave_out)
