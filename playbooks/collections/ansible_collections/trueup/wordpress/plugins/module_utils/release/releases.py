# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A release that is made of something else than core alone: it appears whole beside the others, by one rename.

Beside each lies what its ``wp-content`` was when it was made (``<release id>.sha256``), for whoever looks for changes.
"""

from __future__ import annotations

import os
import shutil

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, write_durably

CARRIED = ("plugins", "themes", "languages")
FOREIGN_DROP_INS = ("object-cache.php", "advanced-cache.php", "db.php", "sunrise.php")
"""Drop-ins of another host's caches: they speak to what isn't here."""


def is_there(layout):
    return os.path.isdir(layout.release)


def from_release(run, layout, version, user, source):
    """The same code as another release's tree: its own files copied, core linked from the store."""
    if not is_there(layout) and run.change(layout.release, "", f"copy of {source}"):
        _place(run, layout, version, user, f"{source}/wp-content")
    return ()


def from_content(run, layout, version, user, content, *, carry_from=None, extras=()):
    """Core ``version`` with the directory ``content`` as wp-content, without uploads; ``extras``: files beside it.

    Plugins, themes and translations that only ``carry_from``, another wp-content, has are carried over. The names of
    those plugins and themes are answered, and kept beside the release as unmanaged.
    """
    if is_there(layout) or not run.change(layout.release, "", f"WordPress {version} with {content}"):
        return ()
    return _place(run, layout, version, user, content, carry_from, extras)


def unmanaged(layout):
    """Plugins and themes of the release that no source has, as they were told when it was made."""
    try:
        with open(f"{layout.releases}/{layout.release_id}.unmanaged", encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def has_unmanaged(release):
    return os.path.isfile(f"{release}.unmanaged")


def note_unmanaged(layout, names):
    if names:
        text = "".join(f"{name}\n" for name in names)
        write_durably(f"{layout.releases}/{layout.release_id}.unmanaged", text.encode("utf-8"), 0o644)


def discard(layout):
    """A release that was never served goes, and what was noted about it."""
    shutil.rmtree(layout.release, ignore_errors=True)
    core.forget_notes(layout, layout.release_id)


def give(directory, user):
    core.own(directory, user.pw_uid, user.pw_gid)


def _place(run, layout, version, user, content, carry_from=None, extras=()):
    if not core.has(version):
        raise Failure(f"This node has no WordPress {version} to build a release on. Run the playbook again.")
    core.remove_drafts(run, layout)
    draft = f"{layout.releases}/.new-{layout.release_id}"
    pristine = core.pristine(version)
    os.makedirs(draft)
    parts = [f"{pristine}/{name}" for name in sorted(os.listdir(pristine)) if name != "wp-content"]
    links = run.start(["cp", "-al", *parts, draft])
    _copy(content, f"{draft}/wp-content")
    run.wait(links, hint=f"Release {layout.release_id} was not made")
    carried = _carry(run, carry_from, f"{draft}/wp-content") if carry_from else ()
    for name in FOREIGN_DROP_INS:
        if os.path.lexists(f"{draft}/wp-content/{name}"):
            os.unlink(f"{draft}/wp-content/{name}")
    core.own_content(f"{draft}/wp-content", user, layout.uploads)
    for name in core.USER_DIRECTORIES:
        core.own(f"{draft}/wp-content/{name}", user.pw_uid, user.pw_gid)
    for path in extras:
        shutil.copyfile(path, f"{draft}/{os.path.basename(path)}")
    os.symlink(layout.wp_config, f"{draft}/wp-config.php")
    found = [(f"wp-content/{name}", digest) for name, digest in sorted(core.digests(f"{draft}/wp-content"))]
    found += [(name, core.digest_of(f"{draft}/{name}")) for name in sorted(map(os.path.basename, extras))]
    lines = "".join(f"{digest}  {name}\n" for name, digest in found)
    note_unmanaged(layout, carried)
    write_durably(f"{layout.releases}/{layout.release_id}.sha256", lines.encode("utf-8", "surrogateescape"), 0o644)
    os.chmod(draft, 0o755)
    os.rename(draft, layout.release)
    return carried


def _copy(source, target):
    """All but the uploads and what caches keep."""
    skipped = {f"{source}/uploads", f"{source}/cache", f"{source}/upgrade", f"{source}/upgrade-temp-backup"}

    def ignored(directory, names):
        return [name for name in names if f"{directory}/{name}" in skipped]

    shutil.copytree(source, target, symlinks=True, ignore=ignored)


def _carry(run, former, content):
    """Copy the plugins and themes that aren't in ``content``; their names as ``plugins/name``."""
    carried = []
    for kind in CARRIED:
        if not os.path.isdir(f"{former}/{kind}"):
            continue
        os.makedirs(f"{content}/{kind}", exist_ok=True)
        for name in sorted(os.listdir(f"{former}/{kind}")):
            if not os.path.lexists(f"{content}/{kind}/{name}"):
                run.command(["cp", "-a", f"{former}/{kind}/{name}", f"{content}/{kind}/{name}"])
                carried.append(f"{kind}/{name}")
    return tuple(name for name in carried if not name.startswith("languages/") and not name.endswith("/index.php"))
