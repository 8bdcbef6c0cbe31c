# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A release that is made of something else than core alone: it appears whole beside the others, by one rename.

Beside each lies what its ``wp-content`` was when it was made (``<release id>.sha256``), for whoever looks for changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.tree import Tree

CONTENT = "wp-content"
LEFT_OUT = ("uploads", "cache", "upgrade", "upgrade-temp-backup")
"""Names in a wp-content that go into no release: what is shared by all, and what caches keep."""
CARRIED = ("plugins", "themes", "languages")
FOREIGN_DROP_INS = ("object-cache.php", "advanced-cache.php", "db.php", "sunrise.php")
"""Drop-ins of another host's caches: they speak to what isn't here."""
OBJECT_CACHE = b"Plugin Name: Trueup object cache"


def is_there(layout):
    return paths.is_directory(layout.release)


def from_release(run, layout, version, user, source):
    """The same code as another release's tree: its own files copied, core from the store."""
    if not is_there(layout) and run.change(layout.release, "", f"copy of {source}"):
        _place(run, layout, version, user, f"{source}/wp-content")
    return ()


def from_content(run, layout, version, user, content, *, carry_from=None, extras=(), ours=False):
    """Core ``version`` with the directory ``content`` as wp-content, without uploads; ``extras``: files beside it.

    ``ours``: only root ever wrote there, on the sites' file system, and it may be used up. It is the environment's own
    code, so it keeps its drop-ins.

    Plugins, themes and translations that only ``carry_from``, another wp-content, has are carried over. The names of
    those plugins and themes are answered, and kept beside the release as unmanaged.
    """
    if is_there(layout) or not run.change(layout.release, "", f"WordPress {version} with {content}"):
        return ()
    return _place(run, layout, version, user, content, carry_from, extras, ours=ours)


def unmanaged(layout):
    """Plugins and themes of the release that no source has, as they were told when it was made."""
    return (paths.read(f"{layout.releases}/{layout.release_id}.unmanaged") or b"").decode("utf-8").splitlines()


def left_out(layout):
    """What of its source is not in the release, as it was told when it was made."""
    return (paths.read(f"{layout.releases}/{layout.release_id}.left-out") or b"").decode("utf-8").splitlines()


def note_left_out(layout, names):
    if names:
        text = "".join(f"{name}\n" for name in names)
        write_durably(f"{layout.releases}/{layout.release_id}.left-out", text.encode("utf-8"), 0o644)


def has_unmanaged(release):
    return paths.is_file(f"{release}.unmanaged")


def carry_unmanaged(source, layout):
    """What was told of the release directory ``source`` is told of this one, too."""
    if has_unmanaged(source):
        found = paths.read(f"{source}.unmanaged")
        write_durably(f"{layout.releases}/{layout.release_id}.unmanaged", found, 0o644)


def note_unmanaged(layout, names):
    if names:
        text = "".join(f"{name}\n" for name in names)
        write_durably(f"{layout.releases}/{layout.release_id}.unmanaged", text.encode("utf-8"), 0o644)


def discard(layout):
    """A release that was never served goes, and what was noted about it."""
    paths.remove(layout.release)
    core.forget_notes(layout, layout.release_id)


def _place(run, layout, version, user, content, carry_from=None, extras=(), *, ours=False):
    core.refuse_unless_whole(version)
    core.remove_drafts(run, layout)
    draft = f"{layout.releases}/.new-{layout.release_id}"
    paths.directory(draft)
    core.lay_core(version, draft)
    _bring(run, content, f"{draft}/wp-content", ours=ours)
    carried = _carry(run, carry_from, f"{draft}/wp-content") if carry_from else ()
    for name in FOREIGN_DROP_INS:
        path = f"{draft}/wp-content/{name}"
        if not ours or OBJECT_CACHE in (paths.read(path) or b""):
            paths.remove(path)
    core.own_content(f"{draft}/wp-content", user, layout.uploads)
    for name in core.USER_DIRECTORIES:
        core.own(run, f"{draft}/wp-content/{name}", user.pw_uid, user.pw_gid)
    core.give_links(draft, user)
    added = [os.path.basename(path) for path in extras if _copied(run, path, f"{draft}/{os.path.basename(path)}")]
    paths.link(f"{draft}/wp-config.php", layout.wp_config)
    with Tree(draft) as tree:
        found = [(f"wp-content/{name}", told) for name, told in sorted(tree.digests("wp-content"))]
        found = [(name, told) for name, told in found if not told.startswith("-> ") or name != f"{CONTENT}/uploads"]
        found = [(name, _of_link(tree, name) if told.startswith("-> ") else told) for name, told in found]
        found += [(name, tree.digest(name)) for name in sorted(added)]
    lines = "".join(f"{digest}  {name}\n" for name, digest in found if digest and "\n" not in name)
    note_unmanaged(layout, carried)
    write_durably(f"{layout.releases}/{layout.release_id}.sha256", lines.encode("utf-8", "surrogateescape"), 0o644)
    os.rename(draft, layout.release)
    return carried


def _bring(run, content, target, *, ours):
    if not ours:
        _note(run, paths.copy(content, target, leave_out=LEFT_OUT))
        return
    os.rename(content, target)
    for name in LEFT_OUT:
        paths.remove(f"{target}/{name}")


def _of_link(tree, name):
    """What stands for a link: the digest of the file of the release's that it leads to, or of where it leads."""
    return tree.digest_behind(name) or hashlib.sha256(os.fsencode(f"-> {tree.target(name)}")).hexdigest()


def _note(run, told):
    if told:
        run.notes.append(told)


def _copied(run, source, target):
    """Whether the file was there to be copied."""
    try:
        _note(run, paths.copy(source, target))
    except FileNotFoundError:
        return False
    if paths.is_file(target):
        return True
    # What Composer, or a package of it, has put in the place of a file is nothing that visitors are given.
    paths.remove(target)
    return False


def _carry(run, former, content):
    """Copy the plugins and themes that aren't in ``content``; their names as ``plugins/name``."""
    carried = []
    for kind in CARRIED:
        if not paths.is_directory(f"{former}/{kind}"):
            continue
        if not paths.is_directory(f"{content}/{kind}"):
            paths.remove(f"{content}/{kind}")
            paths.directory(f"{content}/{kind}")
        there = set(paths.names(f"{content}/{kind}"))
        for name in paths.names(f"{former}/{kind}"):
            if name not in there:
                with contextlib.suppress(FileNotFoundError):
                    _note(run, paths.copy(f"{former}/{kind}/{name}", f"{content}/{kind}/{name}"))
                    carried.append(f"{kind}/{name}")
    return tuple(name for name in carried if not name.startswith("languages/") and not name.endswith("/index.php"))
