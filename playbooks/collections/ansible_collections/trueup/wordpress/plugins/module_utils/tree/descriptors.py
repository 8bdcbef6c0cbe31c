# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What is done with descriptors: a name is opened beneath a directory, and what was opened is what is worked on."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import struct

BLOCK = 1 << 20
LARGEST = 64 << 30
"""Bytes of a file that is digested or copied."""
DEEPEST = 100
"""Directories in directories; each is a descriptor while a walk is in it."""
GONE = frozenset((errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EXDEV, errno.ENXIO, errno.EISDIR, errno.ESTALE))
"""Errors of a name that leads to something else than it did, or should: not of the disk."""
ALWAYS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY

_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
_AT_EMPTY_PATH = 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def opened(handle):
    try:
        yield handle
    finally:
        os.close(handle)


def open_beneath(directory, name, flags, mode, *, links=False):
    """A descriptor of what lies beneath a directory. ``links``: of those that lead to elsewhere beneath it, too."""
    if flags & os.O_PATH:  # which the kernel takes with few others
        flags &= ~(os.O_NONBLOCK | os.O_NOCTTY)
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | (0 if links else _RESOLVE_NO_SYMLINKS)
    how = struct.pack("<QQQ", flags, mode, resolve)
    handle = _libc.syscall(_OPENAT2, directory, os.fsencode(name), how, len(how))
    if handle >= 0:
        return handle
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EPERM):
        return _open_by_steps(directory, name, flags | os.O_NOFOLLOW, mode)
    raise OSError(number, os.strerror(number), name)


def _open_by_steps(directory, name, flags, mode):
    """The same where the kernel lacks ``openat2``: one directory after the other, and no link on the way."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or name.startswith("/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    with contextlib.ExitStack() as stack:
        here = directory
        for part in parts[:-1]:
            here = stack.enter_context(opened(os.open(part, os.O_PATH | os.O_DIRECTORY | ALWAYS, dir_fd=here)))
        handle = os.open(parts[-1] if parts else ".", flags, mode, dir_fd=here)
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    return handle


def kind_of(entry):
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0


def blocks(handle, most=LARGEST):
    while most > 0 and (block := os.read(handle, min(BLOCK, most))):
        most -= len(block)
        yield block


def digest_of(handle):
    found = hashlib.sha256()
    for block in blocks(handle, os.fstat(handle).st_size):
        found.update(block)
    return found.hexdigest()


def is_own(found, directory):
    """Whether a file with several names is the site's: it belongs to whom its directory belongs, who is not root."""
    return found.st_uid == directory.st_uid != 0


def refuse_shared(handle, name):
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise OSError(errno.EMLINK, "has another name elsewhere", name)
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENXIO, "is neither a file nor a directory", name)


def own(directory, name, kind, uid, gid):
    """Whatever is at the name now, by its descriptor: nothing takes its place between the look and the deed."""
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        flags = os.O_RDONLY | (os.O_DIRECTORY if kind == stat.S_IFDIR else 0)
        with opened(os.open(name, flags | ALWAYS, dir_fd=directory)) as handle:
            found = os.fstat(handle)
            if (found.st_uid, found.st_gid) != (uid, gid):
                refuse_shared(handle, name)
                os.fchown(handle, uid, gid)
    elif kind == stat.S_IFLNK:
        with opened(os.open(name, os.O_PATH | ALWAYS, dir_fd=directory)) as handle:
            if stat.S_ISLNK(os.fstat(handle).st_mode) and _libc.fchownat(handle, b"", uid, gid, _AT_EMPTY_PATH) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), name)


def cloned(source, target):
    """Whether the file system shares the blocks of both, as XFS and Btrfs do."""
    try:
        fcntl.ioctl(target, 0x40049409, source)
    except OSError:
        return False
    return True


def send(source, target, offset, count):
    while count > 0:
        sent = os.sendfile(target, source, offset, min(count, BLOCK))
        if sent == 0:
            return
        offset, count = offset + sent, count - sent


def draft_of(name):
    return f".{name[:200]}.{secrets.token_hex(6)}.trueup-new"
