# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A release that is made on the node of one that is there: as it is by now (adopt), or as it was released (discard).

Neither touches the release that it is made of, so going back is the switch of a link.
"""

from __future__ import annotations

import contextlib
import os
import stat

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.release import releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release import updated_tree as updated
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.tree import Tree

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
    if not paths.is_directory(f"{source}/wp-content"):
        raise Failure(f"There is no release {made_from} on this node to {release['origin']}. Correct made_from.")
    work = f"{layout.site}/updating"
    paths.remove(work)
    paths.directory(work, 0o700)
    try:
        if release["origin"] == "adopt":
            _adopt(run, layout, version, user, source, work)
        else:
            _discard(run, layout, version, user, source, work)
    finally:
        paths.remove(work)


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
    if told := paths.copy(f"{source}/wp-content", f"{work}/wp-content", leave_out=releases.LEFT_OUT):
        run.notes.append(told)
    _take_out_unknown(work, released)
    lost = [path for path, digest in sorted(released.items()) if not _put_back(path, digest, layout, version, work)]
    if lost:
        raise Failure(
            f"Nothing on this node has {_listed(lost)} as released, so nothing was changed. Deploy the code again, or "
            "restore a backup, or adopt the change.",
            trueup_code="DISCARD_IMPOSSIBLE",
        )
    extras = [f"{work}/{path}" for path in released if not path.startswith(CONTENT)]
    releases.carry_unmanaged(source, layout)
    releases.from_content(run, layout, version, user, f"{work}/wp-content", extras=extras, ours=True)
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
    text = (paths.read(path) or b"").decode("utf-8", "surrogateescape")
    found = [line.split("  ", 1) for line in text.splitlines()]
    return [(line[1], line[0]) for line in found if len(line) == 2]


def _take_out_unknown(work, released):
    """Remove what was not released, and the directories that this leaves empty."""
    with Tree(work) as tree:
        for path, handle, name, kind in tree.walk(CONTENT.rstrip("/")):
            if kind == stat.S_IFDIR:
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=handle)
            elif f"{CONTENT}{path}" not in released:
                os.unlink(name, dir_fd=handle)


def _put_back(path, digest, layout, version, work):
    """Whether ``work`` has this file as it was released, by now."""
    with Tree(work) as tree:
        if tree.digest(path) == digest:
            return True
        tree.remove(path)
        tree.room(path)
        places = [core.pristine(version), *(f"{layout.releases}/{name}" for name in _names(layout.releases))]
        return any(_copied(place, path, tree, digest) for place in places)


def _copied(place, path, tree, digest):
    with contextlib.suppress(FileNotFoundError), Tree(place) as source:
        source.copy(path, tree, path)
    if tree.digest(path) == digest:
        return True
    tree.remove(path)
    return False


def _names(directory):
    return [name for name in paths.names(directory) if name[0] != "."]


def _listed(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
