# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The store of pristine WordPress trees: no release shares an inode with it, and it is read-only even for root.

Beside each version lie the sha256 of all its files as they were unpacked (``<version>.sha256``), and its seal
(``<version>.seal``): inode, size, times, owner and mode of all of them when they were last read and found to be so. A
look costs as much as listing them; only where the seal is broken they are read again.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import stat

from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.tree import Tree

LOCK = "/run/trueup/locks/store"
WHOLE, SHARED, DAMAGED = "whole", "shared", "damaged"
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_SLAVE = 0x4000, 1 << 19
_MNT_DETACH = 2


def record(store, version):
    """Path to sha256 of a version's files as they were unpacked; empty where nothing says so."""
    text = (paths.read(f"{store}/{version}.sha256") or b"").decode("utf-8", "surrogateescape")
    lines = [line.split("  ", 1) for line in text.splitlines()]
    return {line[1]: line[0] for line in lines if len(line) == 2}


def condition(store, version):
    """``whole``; ``shared``, where releases have the same inodes; or ``damaged``."""
    if not os.path.isdir(f"{store}/{version}"):
        return DAMAGED
    found, shared = _look(f"{store}/{version}")
    if not shared and paths.read(f"{store}/{version}.seal") == found:
        return WHOLE
    if not _is_as_recorded(store, version):
        return DAMAGED
    if shared:
        return SHARED
    with contextlib.suppress(OSError), writable(store):
        seal(store, version)
    return WHOLE


def seal(store, version):
    """Say of a version that was just read that all in it is as it was unpacked."""
    found, _ = _look(f"{store}/{version}")
    paths.replace(f"{store}/{version}.seal", found, 0o644)


def _look(tree):
    """What a seal says of a tree as it is now, and whether a file of it has another name elsewhere."""
    digest, shared = hashlib.sha256(), False
    with Tree(tree) as open_tree:
        for path, handle, name, _ in open_tree.walk():
            one = os.stat(name, dir_fd=handle, follow_symlinks=False)
            shared = shared or (one.st_nlink > 1 and not stat.S_ISDIR(one.st_mode))
            facts = (one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_mode, one.st_uid, one.st_gid)
            digest.update(f"{path} {facts}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest().encode(), shared


def _is_as_recorded(store, version):
    wanted = record(store, version)
    with Tree(f"{store}/{version}") as tree:
        for _, handle, name, _ in tree.walk():
            one = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if (one.st_uid, one.st_gid) != (0, 0) or stat.S_IMODE(one.st_mode) & 0o022:
                return False
        # Whatever shares an inode is root's own here.
        return bool(wanted) and dict(tree.digests(shared=True)) == wanted


@contextlib.contextmanager
def locked():
    """One run at a time changes what is in the store."""
    os.makedirs(os.path.dirname(LOCK), mode=0o700, exist_ok=True)
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def writable(store):
    """Go beneath the read-only mount: for this thread and the commands that it starts it is not there."""
    if not _is_mounted(store):
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _done(libc.unshare(_CLONE_NEWNS), store)
        try:
            _done(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None), store)
            while _is_mounted(store):
                _done(libc.umount2(os.fsencode(store), _MNT_DETACH), store)
            yield
        finally:
            _done(libc.setns(handle, _CLONE_NEWNS), store)
    finally:
        os.close(handle)


def _is_mounted(store):
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return any(line.split(" ", 5)[4] == store for line in file)


def _done(result, store):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), store)
