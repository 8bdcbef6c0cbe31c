# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Puts files, directories, links and a file's section in place; each says whether it had to."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import struct

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read, write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

HOSTS = "/etc/hosts"
HOSTS_LOCK = "/run/trueup/locks/hosts"
DIRECTORY = b"directory"
"""What a directory's digest is of."""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def file(run, path, text, *, mode=0o644, uid=0, gid=0, shown=None):
    """Make ``path`` hold ``text``. ``shown`` makes texts fit to be seen in a diff; left out: as they are."""
    shown = shown or (lambda text: text)
    wanted = text.encode("utf-8")
    status = _status(path)
    if status and stat.S_ISDIR(status.st_mode):
        raise Failure(f"{path} is a directory, but a file belongs there. Move it away and run again.")
    found = read(path)
    if found == wanted and status and status.st_nlink == 1:
        return attributes(run, path, mode, uid, gid)
    if run.change(path, shown((found or b"").decode("utf-8", "replace")), shown(text)):
        write_durably(path, wanted, mode, uid, gid)
    return True


def absent(run, path):
    if _status(path) is None:
        return False
    if run.change(path, "present", ""):
        with paths.at(path) as (tree, name), tree.parent(name) as (parent, last):
            os.unlink(last, dir_fd=parent)
    return True


def directory(run, path, mode, uid=0, gid=0):
    """Make ``path`` a directory; what is in it stays."""
    status = _status(path)
    if status and stat.S_ISDIR(status.st_mode):
        return attributes(run, path, mode, uid, gid)
    if run.change(path, "", f"directory {mode:04o}"):
        paths.directory(path, mode, uid, gid)
    return True


def owned(run, path, mode, uid, gid):
    """The same, and where it is another's, all that is in it becomes its owner's again."""
    status = _status(path)
    is_foreign = status and stat.S_ISDIR(status.st_mode) and (status.st_uid, status.st_gid) != (uid, gid)
    if is_foreign and run.change(f"{path}/*", f"{status.st_uid} {status.st_gid}", f"{uid} {gid}"):
        # Itself comes last: if this ends halfway, it is seen and done again.
        run.notes += filter(None, [paths.own(path, uid, gid)])
    return directory(run, path, mode, uid, gid) or bool(is_foreign)


def attributes(run, path, mode, uid, gid):
    """Give a file or directory its owner and mode; never what a link leads to."""
    found = _status(path)
    if found is None:
        raise Failure(f"{path} was taken away while it was worked on. Run again.")
    before = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    if before == (mode, uid, gid):
        return False
    if run.change(path, "{:04o} {} {}".format(*before), f"{mode:04o} {uid} {gid}"):
        with paths.at(path) as (tree, name):
            tree.set(name, mode, uid, gid)
    return True


def link(run, path, target):
    """Make ``path`` a link to ``target``, by a rename: there is no moment without it."""
    status = _status(path)
    found = _target(path) if status and stat.S_ISLNK(status.st_mode) else None
    if found == target:
        return False
    if status and stat.S_ISDIR(status.st_mode):
        raise Failure(f"{path} is a directory, but a link to {target} belongs there. Move it away and run again.")
    if run.change(path, f"link to {found}" if found else "", f"link to {target}"):
        with paths.at(path) as (tree, name):
            tree.link(name, target)
    return True


def _target(path):
    with paths.at(path) as (tree, name):
        return tree.target(name)


def _status(path):
    """What is there, a link for itself; None where nothing is."""
    try:
        with paths.at(path) as (tree, name):
            return tree.status(name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def door(run, path, group, visitor):
    """Let ``group`` and the user ``visitor`` into a directory of root's, and nobody else."""
    wanted = _access_list(0o7, visitor, 0o5, 0o5)
    with paths.directory_at(path) as handle:
        try:
            found = os.getxattr(handle, "system.posix_acl_access")
        except OSError:
            found = b""
        owner = os.fstat(handle)
        if found == wanted and (owner.st_uid, owner.st_gid) == (0, group):
            return False
        if run.change(path, "", f"open to group {group} and user {visitor} alone"):
            os.fchown(handle, 0, group)
            os.setxattr(handle, "system.posix_acl_access", wanted)
    return True


def _access_list(owner, visitor, visitor_rights, group):
    """An access control list in the kernel's own form: version 2, then entries of tag, rights, id."""
    nobody = 0xFFFFFFFF
    entries = [
        (0x01, owner, nobody),
        (0x02, visitor_rights, visitor),
        (0x04, group, nobody),
        (0x10, visitor_rights | group, nobody),
        (0x20, 0, nobody),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


# Sections: the lines of /etc/hosts that end in our mark


def hosts(run, environment_id, hostnames, address=None):
    """Make the names resolve to an address of this node, or none of them; whatever else is in the file stays."""
    mark = section_mark(environment_id)
    wanted = f"{address or '127.0.0.1'} {' '.join(hostnames)} {mark}\n" if hostnames else ""
    if not run.check_mode:
        os.makedirs(os.path.dirname(HOSTS_LOCK), mode=0o700, exist_ok=True)
    with open(HOSTS_LOCK, "w") if not run.check_mode else contextlib.nullcontext() as lock:
        if lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        lines = (read(HOSTS) or b"").decode("utf-8", "surrogateescape").splitlines(keepends=True)
        found = "".join(line for line in lines if line.rstrip().endswith(mark))
        if found == wanted:
            return False
        if run.change(f"{HOSTS}#{environment_id}", found, wanted):
            rest = "".join(line for line in lines if not line.rstrip().endswith(mark))
            text = f"{rest}{'' if not rest or rest.endswith(chr(10)) else chr(10)}{wanted}"
            write_durably(HOSTS, text.encode("utf-8", "surrogateescape"), 0o644)
    return True


def section_mark(environment_id):
    return f"# trueup {environment_id}"


def all_attributes(names):
    """Mode, uid and gid of managed files and directories as a text, by path; sections have none.

    The mode is ``*`` where it is a user's own to change.
    """
    found = {path: _status(path) for path in names if "#" not in path}
    modes = {path: "*" if one.st_uid else f"{stat.S_IMODE(one.st_mode):04o}" for path, one in found.items() if one}
    return {path: f"{mode} {found[path].st_uid} {found[path].st_gid}" for path, mode in modes.items()}


def digest_of(path):
    """sha256 in hex of a managed file, or of a section: ``path#id`` is the lines of path that end in its mark.

    A directory has nothing to compare but its attributes: it is always the same.
    """
    name, _, section = path.partition("#")
    if not section:
        return sha256(DIRECTORY) if paths.is_directory(name) else paths.digest(name)
    data = read(name)
    if data is None:
        return None
    mark = section_mark(section).encode()
    lines = [line for line in data.splitlines(keepends=True) if line.rstrip().endswith(mark)]
    return sha256(b"".join(lines)) if lines else None
