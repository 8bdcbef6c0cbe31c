# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""WordPress's code: one pristine tree per version and node, and releases that are hard links to it.

A release's core is root's and shared with the store, so its user cannot change it; its ``wp-content`` is its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import time

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import place, spares
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, write_durably

STORE = "/opt/trueup/wordpress"
KEPT_RELEASES = 5
USER_DIRECTORIES = ("plugins", "themes", "upgrade", "languages")
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def pristine(version):
    return f"{STORE}/{version}"


def has(version):
    return os.path.isdir(pristine(version))


def version_of(tree):
    """The version of a WordPress tree, as its own code says it; None where there is none."""
    try:
        with open(f"{tree}/wp-includes/version.php", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^\$wp_version = '([^']+)';", file.read(), re.MULTILINE)
    except FileNotFoundError:
        return None
    return found.group(1) if found else None


def unpack(run, version, archive):
    """Make the pristine tree of ``version`` from a checked archive. It appears whole, or not at all."""
    if has(version) or not run.change(pristine(version), "", f"WordPress {version}"):
        return
    _refuse_unless_as_pinned(archive)
    os.makedirs(STORE, exist_ok=True)
    draft = f"{STORE}/.new-{version}-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    os.mkdir(draft)
    argv = ["tar", "--extract", "--gzip", "--no-same-owner", "--no-same-permissions", "--strip-components=1"]
    run.command([*argv, "--directory", draft, "--file", archive["path"]], hint=f"WordPress {version} was not unpacked")
    if version_of(draft) != version:
        raise Failure(f"The archive of WordPress {version} holds version {version_of(draft)}. Check trueup_artifacts.")
    _date(draft)
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests(draft)))
    write_durably(f"{STORE}/{version}.sha256", lines.encode("utf-8"), 0o644)
    os.chmod(draft, 0o755)
    # Another environment's run may have been faster; its tree is the same.
    with contextlib.suppress(FileExistsError, OSError):
        os.rename(draft, pristine(version))
    shutil.rmtree(draft, ignore_errors=True)


def _refuse_unless_as_pinned(archive):
    with open(archive["path"], "rb") as file:
        found = _hash(file)
    if found != archive["sha256"]:
        raise Failure(f"The archive arrived with sha256 {found} instead of {archive['sha256']}. Run again.")


def _date(tree):
    """Opcache never keeps a file dated 1970, as those of a reproducible archive are, nor one that is seconds old."""
    moment = time.time() - 3600
    for directory, _, names in os.walk(tree):
        for name in names:
            os.utime(os.path.join(directory, name), (moment, moment))


def _hash(file):
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def digest_of(path):
    with open(path, "rb") as file:
        return _hash(file)


def digests(tree):
    for directory, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                yield os.path.relpath(path, tree), _hash(file)


# Releases


def begin_release(run, layout, version):
    """Have the release made meanwhile; ``ensure_release`` takes what is answered. None where it is there already."""
    remove_drafts(run, layout)
    if version_of(layout.release) is None and run.change(layout.release, "", f"WordPress {version}"):
        return Draft(run, layout, version)
    return None


def ensure_release(run, layout, version, user, draft=None):
    """Make the release directory hold core ``version``; whether it had to be made. ``draft``: one that was begun."""
    if draft:
        return _put_in_place(draft.whole(user), layout)
    remove_drafts(run, layout)
    found = version_of(layout.release)
    if found == version:
        return _relink(run, layout, version)
    before = f"WordPress {found}" if found else ""
    if run.change(layout.release, before, f"WordPress {version}"):
        _put_in_place(Draft(run, layout, version).whole(user), layout)
    return True


def _put_in_place(draft, layout):
    if os.path.isdir(layout.release):
        exchange(draft, layout.release)
        shutil.rmtree(draft)
    else:
        os.rename(draft, layout.release)
    return True


def _relink(run, layout, version):
    """Put back core files that are no longer the store's own; whether there were any."""
    source = pristine(version)
    replaced = [name for name in _core_files(source) if not _same(f"{source}/{name}", f"{layout.release}/{name}")]
    if replaced and run.change(f"core of {layout.release}", "\n".join(replaced), ""):
        for name in replaced:
            path = f"{layout.release}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            draft = f"{path}.trueup-new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            os.link(f"{source}/{name}", draft)
            os.rename(draft, path)
    return bool(replaced)


def _core_files(source):
    for directory, subdirectories, names in os.walk(source):
        if directory == source:
            subdirectories.remove("wp-content")
        prefix = directory[len(source) + 1 :]
        yield from (os.path.join(prefix, name) for name in names)


def _same(one, other):
    try:
        return os.path.samestat(os.stat(one), os.lstat(other))
    except FileNotFoundError:
        return False


class Draft:
    """A release under a name that nobody looks at: a tree that was ready, or one whose parts are being copied."""

    def __init__(self, run, layout, version):
        self.run = run
        self.layout = layout
        self.path = f"{layout.releases}/.new-{layout.release_id}"
        self.copies = []
        source, former = pristine(version), os.path.realpath(layout.current)
        if os.path.isdir(former):
            self._copy(source, f"{former}/wp-content")
        elif not spares.take(source, self.path):
            self._copy(source, f"{source}/wp-content")

    def _copy(self, source, content):
        os.mkdir(self.path)
        parts = [os.path.join(source, name) for name in sorted(os.listdir(source)) if name != "wp-content"]
        self.copies = [
            self.run.start(["cp", "-al", *parts, self.path]),
            self.run.start(["cp", "-a", content, self.path]),
        ]

    def whole(self, user):
        """Its path, when all is in it."""
        for copy in self.copies:
            self.run.wait(copy, hint=f"Release {self.layout.release_id} was not made")
        own_content(f"{self.path}/wp-content", user, self.layout.uploads)
        os.symlink(self.layout.wp_config, f"{self.path}/wp-config.php")
        return self.path


def own_content(content, user, target):
    """Root's, sticky: the user may add, but not remove or replace what is not its own."""
    for name in (*USER_DIRECTORIES, "mu-plugins"):
        os.makedirs(f"{content}/{name}", exist_ok=True)
    for path in (content, f"{content}/mu-plugins"):
        os.chown(path, 0, user.pw_gid)
        os.chmod(path, 0o1775)
    uploads = f"{content}/uploads"
    if os.path.isdir(uploads) and not os.path.islink(uploads):
        shutil.rmtree(uploads)
    if not os.path.islink(uploads):
        os.symlink(target, uploads)


def ensure_ownership(run, layout, user, *, locked):
    """Plugins and themes are the user's to change, or nobody's."""
    uid, gid = (0, 0) if locked or not user else (user.pw_uid, user.pw_gid)
    changed = False
    for name in USER_DIRECTORIES:
        path = f"{layout.content}/{name}"
        if not os.path.isdir(path):
            place.directory(run, path, 0o755, uid, gid)
        elif os.stat(path).st_uid != uid:
            changed = True
            if run.change(path, "", "locked" if locked else "writable"):
                # The directory itself comes last: if this ends halfway, it is seen and done again.
                own(path, uid, gid)
    return changed


def own(path, uid, gid):
    for directory, _, names in os.walk(path, topdown=False):
        for name in names:
            os.lchown(os.path.join(directory, name), uid, gid)
        os.lchown(directory, uid, gid)


def ensure_links(run, layout):
    """What is shared by all releases, seen in this one."""
    place.link(run, f"{layout.content}/uploads", layout.uploads)
    place.link(run, f"{layout.release}/wp-config.php", layout.wp_config)


def switch(run, layout):
    """Make the release the current one; whether it was another before."""
    return switch_to(run, layout, f"releases/{layout.release_id}")


def switch_to(run, layout, target):
    return place.link(run, layout.current, target)


def forget_old_releases(run, layout, applied):
    """Keep the last few of the releases that were applied, oldest first in ``applied``; never touch an unknown one."""
    kept = [release for release in applied if os.path.isdir(f"{layout.releases}/{release}")]
    for release in kept[:-KEPT_RELEASES]:
        if release != layout.release_id and run.change(f"{layout.releases}/{release}", "release", ""):
            shutil.rmtree(f"{layout.releases}/{release}")
            forget_notes(layout, release)
    return tuple(kept[-KEPT_RELEASES:])


def forget_notes(layout, release):
    """What was written down beside a release when it was made."""
    for kind in ("sha256", "unmanaged", "update"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{layout.releases}/{release}.{kind}")


def remove_drafts(run, layout):
    if run.check_mode or not os.path.isdir(layout.releases):
        return
    for name in os.listdir(layout.releases):
        if name.startswith(".new-"):
            shutil.rmtree(f"{layout.releases}/{name}")


def exchange(one, other):
    """Two directories trade places in one step: there is no moment without a release."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), other)
