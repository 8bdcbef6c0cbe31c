# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies a site's files to where no site's user can write, whatever happens to them meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ansible_collections.trueup.wordpress.plugins.module_utils.tree.descriptors import (
    ALWAYS,
    BLOCK,
    DIRECTORY,
    GONE,
    cloned,
    opened,
    send,
)


class Copy:
    """One copying: ``tree`` counts and notes, ``keep`` is the uid that stays an owner."""

    def __init__(self, tree, keep, shared):
        self.tree = tree
        self.keep = keep
        self.shared = shared
        self.clones = True

    def run(self, name, other, target, leave_out):
        try:
            with self.tree.parent(name) as (source, last), other.parent(target) as (parent, wanted):
                kind = stat.S_IFMT(os.stat(last, dir_fd=source, follow_symlinks=False).st_mode)
                self._entry((source, last, kind), (parent, wanted), last, 0, leave_out)
        except OSError as error:
            if error.errno not in GONE:
                raise
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.tree.root}/{name}") from error

    def _entry(self, entry, target, path, depth, leave_out=()):
        source, name, kind = entry
        parent, wanted = target
        if kind == stat.S_IFDIR:
            self._directory(source, name, parent, wanted, path, depth, leave_out)
        elif kind == stat.S_IFREG:
            self._file(source, name, parent, wanted, path)
        elif kind == stat.S_IFLNK:
            self._link(source, name, parent, wanted, path)
        else:
            self.tree.skip(path, "is neither a file nor a directory")

    def _directory(self, source, name, parent, wanted, path, depth, leave_out):
        try:
            handle = self.tree.inside(source, name, path, depth)
        except OSError as error:
            self.tree.pass_over(path, error)
            return
        if handle is None:
            return
        with opened(handle):
            with contextlib.suppress(FileExistsError):
                os.mkdir(wanted, 0o700, dir_fd=parent)
            with opened(os.open(wanted, DIRECTORY | ALWAYS, dir_fd=parent)) as made:
                for one, kind in self.tree.entries(handle, leave_out):
                    self._entry((handle, one, kind), (made, one), f"{path}/{one}" if path else one, depth + 1)
                self._finish(os.fstat(handle), made)

    def _file(self, source, name, parent, wanted, path):
        with contextlib.ExitStack() as stack:
            try:
                handle = stack.enter_context(self.tree.readable(source, name, path, shared=self.shared))
            except OSError as error:
                self.tree.pass_over(path, error)
                return
            if handle is None:
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | ALWAYS
            made = stack.enter_context(opened(os.open(wanted, flags, 0o600, dir_fd=parent)))
            found = os.fstat(handle)
            self._pour(handle, made, found)
            self._finish(found, made)

    def _link(self, source, name, parent, wanted, path):
        try:
            found = os.stat(name, dir_fd=source, follow_symlinks=False)
            to = os.readlink(name, dir_fd=source)
        except OSError as error:
            if error.errno == errno.EINVAL:
                self.tree.skip(path, "changed while it was read")
                return
            self.tree.pass_over(path, error)
            return
        os.symlink(to, wanted, dir_fd=parent)
        if found.st_uid == self.keep:
            os.chown(wanted, found.st_uid, found.st_gid, dir_fd=parent, follow_symlinks=False)

    def _pour(self, source, target, found):
        if found.st_size >= BLOCK and self.clones:
            self.clones = cloned(source, target)
            if self.clones:
                return
        if found.st_blocks * 512 >= found.st_size:
            send(source, target, 0, found.st_size)
            return
        # A file may say that it is far larger than what it takes on the disk: its holes stay holes.
        offset = 0
        while offset < found.st_size:
            try:
                start = os.lseek(source, offset, os.SEEK_DATA)
            except OSError:
                break
            offset = min(os.lseek(source, start, os.SEEK_HOLE), found.st_size)
            os.lseek(target, start, os.SEEK_SET)
            send(source, target, start, offset - start)
        os.ftruncate(target, found.st_size)

    def _finish(self, found, made):
        if found.st_uid == self.keep:
            os.fchown(made, found.st_uid, found.st_gid)
        os.fchmod(made, found.st_mode & 0o777)
        os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))
