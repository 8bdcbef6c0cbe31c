# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Work on absolute paths that begin where only root writes, and may go on where a site's user does."""

from __future__ import annotations

import contextlib
import os

from ansible_collections.trueup.wordpress.plugins.module_utils.tree.descriptors import DIRECTORY, opened
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.tree import MOST_READ, Tree

SITES = "/var/www/sites"


def split(path):
    """The directory of root's that an absolute path begins in, and the rest: below the sites all is distrusted."""
    if path.startswith(f"{SITES}/"):
        return SITES, path[len(SITES) + 1 :]
    return os.path.split(path)


@contextlib.contextmanager
def at(path):
    """The Tree that an absolute path lies in, and its name there."""
    root, name = split(path)
    with Tree(root) as tree:
        yield tree, name


def read(path, most=MOST_READ):
    """A regular file's bytes; None where there is none, or more than ``most`` bytes."""
    try:
        with at(path) as (tree, name):
            return tree.read(name, most)
    except (FileNotFoundError, NotADirectoryError):
        return None


def head(path, count):
    """The first ``count`` bytes of a regular file; empty where there is none."""
    try:
        with at(path) as (tree, name), tree.file(name) as handle:
            return b"" if handle is None else os.pread(handle, count, 0)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def digest(path):
    """sha256 in hex of a regular file; None where there is none."""
    try:
        with at(path) as (tree, name):
            return tree.digest(name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def replace(path, data, mode, uid=0, gid=0):
    """Put a file there by a rename: a reader, or a crash, sees the old one or the new one."""
    with at(path) as (tree, name):
        tree.replace(name, data, mode, uid, gid)


def directory(path, mode=0o755, uid=0, gid=0):
    """Have a directory there with this owner and mode; those above it are root's where they are lacking."""
    root, name = split(path)
    if root != SITES:
        os.makedirs(root, exist_ok=True)
    with Tree(root) as tree:
        tree.directory(name, mode, uid, gid)


@contextlib.contextmanager
def directory_at(path):
    """A descriptor of a directory, which is no link."""
    with at(path) as (tree, name), opened(tree.open(name, DIRECTORY)) as handle:
        yield handle


def names(path):
    """What is in a directory, sorted; nothing where there is none."""
    try:
        with at(path) as (tree, name):
            return tree.names(name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_directory(path):
    """Whether there is a directory, which is no link."""
    try:
        with at(path) as (tree, name):
            return tree.is_directory(name)
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_file(path):
    """Whether there is a regular file."""
    try:
        with at(path) as (tree, name):
            return tree.is_file(name)
    except (FileNotFoundError, NotADirectoryError):
        return False


def own(path, uid, gid):
    """Give a directory and all in it to somebody; a sentence about what kept its owner."""
    with at(path) as (tree, name):
        tree.own(name, uid, gid)
        return tree.told()


def link(path, target):
    """Put a symbolic link there by a rename."""
    with at(path) as (tree, name):
        tree.link(name, target)


def target(path):
    """Where a link leads, as it says; None where there is no link."""
    try:
        with at(path) as (tree, name):
            return tree.target(name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def room(path):
    """Have the directories above a path, in the place of whatever else is there."""
    with at(path) as (tree, name):
        tree.room(name)


def remove(path):
    """Remove whatever is there, and all in it."""
    with contextlib.suppress(FileNotFoundError), at(path) as (tree, name):
        tree.remove(name)


def copy(source, target, **options):
    """Copy what an absolute path names to another one, as ``Tree.copy`` does; a sentence about what was left out."""
    with at(source) as (tree, name), at(target) as (other, wanted):
        tree.copy(name, other, wanted, **options)
        return tree.told()
