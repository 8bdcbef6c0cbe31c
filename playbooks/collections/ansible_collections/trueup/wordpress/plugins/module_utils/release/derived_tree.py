# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A release that is made on the node of one that is there: as it is by now (adopt), or as it was released (discard).

Neither touches the release that it is made of, so going back is the switch of a link.
"""

from __future__ import annotations

import os
import shutil
import stat

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.release import releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release import updated_tree as updated

ORIGINS = ("adopt", "discard")
KINDS = ("plugins", "themes")
CONTENT = "wp-content/"


def bring(run, layout, variables, user):
    """The declared release, unless it is there."""
    if releases.is_there(layout):
        return
    release, version = variables["release"], variables["wordpress_version"]
    served = os.path.basename(os.path.realpath(layout.current))
    made_from = release.get("made_from") or served
    source = f"{layout.releases}/{made_from}"
    if not os.path.isdir(f"{source}/wp-content"):
        raise Failure(f"There is no release {made_from} on this node to {release['origin']}. Correct made_from.")
    work = f"{layout.site}/updating"
    shutil.rmtree(work, ignore_errors=True)
    os.mkdir(work, 0o700)
    try:
        if release["origin"] == "adopt":
            _adopt(run, layout, version, user, source, work)
        else:
            _discard(run, layout, version, user, source, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _adopt(run, layout, version, user, source, work):
    updated.make(run, layout, version, user, source, (), work)
    known = {tuple(path.split("/")[1:3]) for path in _released(source, version) if path.startswith(CONTENT)}
    found = [(kind, name) for kind in KINDS for name in _names(f"{layout.content}/{kind}")]
    told = {*releases.unmanaged(layout), *("/".join(one) for one in found if one not in known)}
    releases.note_unmanaged(layout, sorted(told))


def _discard(run, layout, version, user, source, work):
    """Only what has the sha256 that it was released with goes into the new release."""
    released = _released(source, version)
    # In a directory of root's nobody exchanges what is being read.
    run.command(["cp", "-al", f"{source}/wp-content", f"{work}/wp-content"], hint="The code was not read")
    _take_out_unknown(work, released)
    lost = [path for path, digest in sorted(released.items()) if not _put_back(path, digest, layout, version, work)]
    if lost:
        raise Failure(
            f"Nothing on this node has {_listed(lost)} as released, so nothing was changed. Deploy the code again, or "
            "restore a backup, or adopt the change.",
            trueup_code="DISCARD_IMPOSSIBLE",
        )
    extras = [f"{work}/{path}" for path in released if not path.startswith(CONTENT)]
    if releases.has_unmanaged(source):
        shutil.copyfile(f"{source}.unmanaged", f"{layout.release}.unmanaged")
    releases.from_content(run, layout, version, user, f"{work}/wp-content", extras=extras)
    # What is linked to from `work` can be written to in `source`.
    if changed := sorted(path for path, digest in _listed_in(layout.release).items() if released.get(path) != digest):
        releases.discard(layout)
        raise Failure(f"{_listed(changed)} changed while it was read, so nothing was done. Run again.")


def _released(source, version):
    """Path to sha256 of what the release was made of besides core."""
    return _listed_in(source) or {
        path: digest for path, digest in _lines(f"{core.pristine(version)}.sha256") if path.startswith(CONTENT)
    }


def _listed_in(release):
    return dict(_lines(f"{release}.sha256"))


def _lines(path):
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            found = [line.rstrip("\n").split("  ", 1) for line in file]
    except FileNotFoundError:
        return []
    return [(line[1], line[0]) for line in found if len(line) == 2]


def _take_out_unknown(work, released):
    for directory, subdirectories, names in os.walk(f"{work}/wp-content"):
        links = [name for name in subdirectories if os.path.islink(f"{directory}/{name}")]
        for name in (*names, *links):
            path = f"{directory}/{name}"
            if os.path.relpath(path, work) not in released:
                os.unlink(path)
    for directory, _, _ in os.walk(f"{work}/wp-content", topdown=False):
        if not os.listdir(directory) and directory != f"{work}/wp-content":
            os.rmdir(directory)


def _put_back(path, digest, layout, version, work):
    """Whether ``work`` has this file as it was released, by now."""
    target = f"{work}/{path}"
    if _digest(target) == digest:
        return True
    if os.path.isdir(target) and not os.path.islink(target):
        shutil.rmtree(target)
    elif os.path.lexists(target):
        os.unlink(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    places = [core.pristine(version), *(f"{layout.releases}/{name}" for name in _names(layout.releases))]
    return any(_copied(f"{place}/{path}", target, digest) for place in places)


def _copied(source, target, digest):
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return False
        with open(target, "wb") as copy:
            shutil.copyfileobj(file, copy)
    if _digest(target) == digest:
        return True
    os.unlink(target)
    return False


def _digest(path):
    """Of a file; None where there is none, or something else."""
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    return core.digest_of(path)


def _names(directory):
    return sorted(name for name in os.listdir(directory) if name[0] != ".") if os.path.isdir(directory) else []


def _listed(paths):
    return ", ".join(paths[:10]) + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")
