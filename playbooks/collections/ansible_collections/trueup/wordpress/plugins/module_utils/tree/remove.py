# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Removes a directory from descriptor to descriptor: no link is followed, and few descriptors do however deep it is."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat

from ansible_collections.trueup.wordpress.plugins.module_utils.tree.descriptors import (
    ALWAYS,
    DEEPEST,
    DIRECTORY,
    kind_of,
    opened,
)


def remove(parent, name):
    """Remove what is at the name in the directory ``parent``, if there is anything."""
    with contextlib.suppress(FileNotFoundError):
        _remove(parent, name)


def _remove(parent, name, top=None, depth=0):
    """Whether some of it lay too deep, and was moved to the directory ``top``."""
    moved = False
    try:
        handle = os.open(name, DIRECTORY | ALWAYS, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(name, dir_fd=parent)
        return moved
    with opened(handle):
        if top is None:
            while _empty(handle, handle, depth):
                continue
        else:
            moved = _empty(handle, top, depth)
    os.rmdir(name, dir_fd=parent)
    return moved


def _empty(handle, top, depth):
    moved = False
    with os.scandir(handle) as entries:
        found = [(entry.name, kind_of(entry) == stat.S_IFDIR) for entry in entries]
    for name, is_directory in found:
        with contextlib.suppress(FileNotFoundError):
            if not is_directory:
                os.unlink(name, dir_fd=handle)
            elif depth < DEEPEST:
                moved = _remove(handle, name, top, depth + 1) or moved
            else:
                # Nobody's nesting uses up our descriptors: what lies deeper is emptied from the top.
                up = f".trueup-deep-{secrets.token_hex(8)}"
                os.rename(name, up, src_dir_fd=handle, dst_dir_fd=top)
                moved = True
    return moved
