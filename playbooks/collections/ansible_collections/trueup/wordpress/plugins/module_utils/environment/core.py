# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""WordPress's code: one pristine tree per version and node, and the releases that are made of it.

A release's core is root's, so its user cannot change it: a link to the store, and copies. Its ``wp-content`` is its
own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import place, spares, store
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import descriptors, paths
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.tree import Tree

STORE = "/opt/trueup/wordpress"
LINKED = "wp-includes"
"""The part of core that releases have as a link to the store: nine tenths of it."""
MOST_CODE = 1 << 20
"""Bytes of a file of core's that is read."""
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
    text = (code_of(tree, "wp-includes/version.php") or b"").decode("utf-8", "replace")
    found = re.search(r"^\$wp_version = '([^']+)';", text, re.MULTILINE)
    return found.group(1) if found else None


def code_of(tree, name):
    """A file of core's in a tree, through the link to the store where there is one; None where there is none."""
    found = paths.read(f"{tree}/{name}", MOST_CODE)
    if found is None and name.startswith(f"{LINKED}/"):
        target = paths.target(f"{tree}/{LINKED}")
        if target and re.fullmatch(rf"{re.escape(STORE)}/[0-9A-Za-z.-]+/{LINKED}", target):
            found = paths.read(f"{target}{name[len(LINKED) :]}", MOST_CODE)
    return found


def condition(version):
    """Of the pristine tree, in a word of ``store``."""
    return store.condition(STORE, version)


def is_ready(run, version):
    """Whether releases can be made of the pristine tree: it is as it was unpacked, and no release shares it.

    One that releases of an earlier Trueup are linked to is made anew of itself; one that was changed is not ready.
    """
    found = condition(version)
    if found == store.SHARED and run.change(pristine(version), "shared with releases", "its own"):
        _part(version)
        return True
    return found != store.DAMAGED


def refuse_unless_whole(version):
    """Raise Failure unless releases can be made of the pristine tree."""
    found = condition(version)
    if found == store.DAMAGED:
        is_there = "is not as it was unpacked" if has(version) else "is not on this node"
        raise Failure(f"WordPress {version} {is_there}, so no release is built on it. Run the playbook again.")


def _part(version):
    """Give the tree inodes of its own. What is linked to it goes on with the former ones."""
    with store.locked(), store.writable(STORE):
        # Another run may have been faster.
        if condition(version) != store.SHARED:
            return
        draft = _draft_of(version)
        paths.copy(pristine(version), draft, shared=True)
        with Tree(draft) as tree:
            if dict(tree.digests()) != store.record(STORE, version):
                raise Failure(f"WordPress {version} changed while it was copied. Run again.")
        _put_in_store(draft, version)


def unpack(run, version, archive):
    """Make the pristine tree of ``version`` from a checked archive. It appears whole, or not at all."""
    if not run.change(pristine(version), "damaged" if has(version) else "", f"WordPress {version}"):
        return
    _refuse_unless_as_pinned(archive)
    os.makedirs(STORE, exist_ok=True)
    with store.locked(), store.writable(STORE):
        # Another run may have been faster.
        if condition(version) != store.WHOLE:
            _unpack(run, version, archive)


def _unpack(run, version, archive):
    draft = _draft_of(version)
    os.mkdir(draft)
    argv = ["tar", "--extract", "--gzip", "--no-same-owner", "--no-same-permissions", "--strip-components=1"]
    run.command([*argv, "--directory", draft, "--file", archive["path"]], hint=f"WordPress {version} was not unpacked")
    if version_of(draft) != version:
        raise Failure(f"The archive of WordPress {version} holds version {version_of(draft)}. Check trueup_artifacts.")
    with Tree(draft) as tree:
        _date(tree)
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(tree.digests()))
        tree.set("", 0o755, 0, 0)
    write_durably(f"{STORE}/{version}.sha256", lines.encode("utf-8"), 0o644)
    _put_in_store(draft, version)


def _draft_of(version):
    """A name in the store at which nothing is."""
    draft = f"{STORE}/.new-{version}"
    paths.remove(draft)
    return draft


def _put_in_store(draft, version):
    if os.path.isdir(pristine(version)):
        try:
            exchange(draft, pristine(version))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # On a layered file system a directory of a lower layer keeps its name; its files can be replaced.
            _fill(draft, version)
        paths.remove(draft)
    else:
        os.rename(draft, pristine(version))
    store.seal(STORE, version)


def _fill(draft, version):
    """Have the store's tree hold what the draft does, file by file, and nothing else."""
    with Tree(draft) as source, Tree(STORE) as tree:
        wanted = {path: kind for path, _, _, kind in source.walk()}
        for path in (path for path, kind in wanted.items() if kind == stat.S_IFREG):
            _replace(source, path, tree, f"{version}/{path}")
        for path in [path for path, _, _, _ in tree.walk(version) if path not in wanted]:
            tree.remove(f"{version}/{path}")


def _refuse_unless_as_pinned(archive):
    found = paths.digest(archive["path"])
    if found != archive["sha256"]:
        raise Failure(f"The archive arrived with sha256 {found} instead of {archive['sha256']}. Run again.")


def _date(tree):
    """Opcache never keeps a file dated 1970, as those of a reproducible archive are, nor one that is seconds old."""
    moment = time.time() - 3600
    for _, handle, name, kind in tree.walk():
        if kind == stat.S_IFREG:
            os.utime(name, (moment, moment), dir_fd=handle, follow_symlinks=False)


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
        return _mend(run, layout, version)
    before = f"WordPress {found}" if found else ""
    if run.change(layout.release, before, f"WordPress {version}"):
        _put_in_place(Draft(run, layout, version, user).whole(user), layout)
    return True


def _put_in_place(draft, layout):
    if os.path.isdir(layout.release):
        exchange(draft, layout.release)
        paths.remove(draft)
    else:
        os.rename(draft, layout.release)
    return True


def lay_core(version, target):
    """Put core into a directory where no site's user can write: a link to the store, and copies of the rest.

    WordPress finds itself by where the files of ``wp-admin`` and of the top are, so those are the release's own.
    """
    with Tree(STORE) as source, paths.at(target) as (tree, name):
        for part in source.names(version):
            if part not in ("wp-content", LINKED):
                source.copy(f"{version}/{part}", tree, f"{name}/{part}", shared=True)
        tree.link(f"{name}/{LINKED}", f"{pristine(version)}/{LINKED}")


def _mend(run, layout, version):
    """Put back core files that are no longer as the store has them, or no longer the release's alone.

    A release of an earlier Trueup, whose files are links to a store of its time, gets its own in their place, one by
    one: whoever is being served finds each file where it was.
    """
    if not has(version):
        return False
    with Tree(pristine(version)) as source, paths.at(layout.release) as (tree, name):
        left_out = ["wp-content"]
        if tree.target(f"{name}/{LINKED}") == f"{pristine(version)}/{LINKED}":
            left_out.append(LINKED)
        wanted = [
            (path, os.stat(last, dir_fd=handle, follow_symlinks=False))
            for path, handle, last, kind in source.walk("", left_out)
            if kind == stat.S_IFREG
        ]
        replaced = [path for path, status in wanted if not _is_copy(tree.status(f"{name}/{path}"), status)]
        if replaced and run.change(f"core of {layout.release}", "\n".join(sorted(replaced)), ""):
            refuse_unless_whole(version)
            for path in replaced:
                _replace(source, path, tree, f"{name}/{path}")
    return bool(replaced)


def _is_copy(found, wanted):
    """Whether a file is the store's in all that is seen without reading it, and has no other name."""
    if found is None or found.st_nlink != 1:
        return False
    facts = ((one.st_mode, one.st_uid, one.st_gid, one.st_size, one.st_mtime_ns) for one in (found, wanted))
    return len(set(facts)) == 1


def _replace(source, path, tree, name):
    where, _, last = name.rpartition("/")
    tree.room(name)
    draft = f"{where}/.{last}.trueup-new"
    tree.remove(draft)
    source.copy(path, tree, draft, shared=True)
    if tree.is_directory(name):
        tree.remove(name)
    with tree.parent(name) as (parent, _):
        os.rename(f".{last}.trueup-new", last, src_dir_fd=parent, dst_dir_fd=parent)


class Draft:
    """A release under a name that nobody looks at: a tree that was ready, or one whose parts are being copied."""

    def __init__(self, run, layout, version, user=None):
        self.run = run
        self.layout = layout
        self.version = version
        self.path = f"{layout.releases}/.new-{layout.release_id}"
        self.copying = None
        former = os.path.realpath(layout.current)
        if os.path.isdir(former):
            self._begin(f"{former}/wp-content", keep=user.pw_uid if user else None)
        elif not spares.take(pristine(version), self.path):
            self._begin(f"{pristine(version)}/wp-content", shared=True)

    def _begin(self, content, **options):
        pool = ThreadPoolExecutor(1)
        self.copying = pool.submit(self._copy, content, options)
        pool.shutdown(wait=False)

    def _copy(self, content, options):
        os.mkdir(self.path)
        lay_core(self.version, self.path)
        return paths.copy(content, f"{self.path}/wp-content", leave_out=("uploads",), **options)

    def whole(self, user):
        """Its path, when all is in it."""
        if self.copying and (told := self.copying.result()):
            self.run.notes.append(told)
        own_content(f"{self.path}/wp-content", user, self.layout.uploads)
        paths.link(f"{self.path}/wp-config.php", self.layout.wp_config)
        return self.path


def own_content(content, user, target):
    """Root's, sticky: the user may add, but not remove or replace what is not its own.

    What is in the place of one of its directories, as a link of a site's, goes: nobody else reaches it yet.
    """
    with paths.at(content) as (tree, name):
        for part in (*USER_DIRECTORIES, "mu-plugins"):
            if not tree.is_directory(f"{name}/{part}"):
                tree.remove(f"{name}/{part}")
                tree.directory(f"{name}/{part}")
        for path in (name, f"{name}/mu-plugins"):
            tree.set(path, 0o1775, 0, user.pw_gid)
        if tree.target(f"{name}/uploads") is None:
            tree.remove(f"{name}/uploads")
            tree.link(f"{name}/uploads", target)


def give_links(release, user):
    """Every link in a release's wp-content becomes the site's, who may have planted it.

    nginx follows a link to what its own owner has. One of root's would lead it to all that root lets it read, be it by
    another link, which the site puts in the place of what the first one leads to.
    """
    with Tree(release) as tree:
        for path, directory, name, kind in tree.walk("wp-content"):
            if kind == stat.S_IFLNK and path != "uploads":
                try:
                    descriptors.own(directory, name, kind, user.pw_uid, user.pw_gid)
                except OSError as error:
                    tree.pass_over(path, error)


def ensure_ownership(run, layout, user, *, locked):
    """Plugins and themes are the user's to change, or nobody's."""
    uid, gid = (0, 0) if locked or not user else (user.pw_uid, user.pw_gid)
    changed = False
    for name in USER_DIRECTORIES:
        path = f"{layout.content}/{name}"
        with paths.at(layout.content) as (tree, content):
            status = tree.status(f"{content}/{name}")
        if status is None:
            place.directory(run, path, 0o755, uid, gid)
        elif not stat.S_ISDIR(status.st_mode):
            run.notes.append(f"{path} is no directory, so it was left as it is. Have a look at it.")
        elif status.st_uid != uid:
            changed = True
            if run.change(path, "", "locked" if locked else "writable"):
                # The directory itself comes last: if this ends halfway, it is seen and done again.
                own(run, path, uid, gid)
    if user and not run.check_mode:
        # Those of a release that an earlier version made are root's.
        try:
            give_links(layout.release, user)
        except OSError as error:
            # However many files a site makes, the rest of it is put right all the same.
            if error.errno != errno.EFBIG:
                raise
            run.notes.append(f"{layout.content} has more files than any site may have: not all of its links were seen.")
    return changed


def own(run, path, uid, gid):
    """Give a directory and all in it to somebody, and note what kept its owner."""
    if told := paths.own(path, uid, gid):
        run.notes.append(told)


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
            paths.remove(f"{layout.releases}/{release}")
            forget_notes(layout, release)
    return tuple(kept[-KEPT_RELEASES:])


def forget_notes(layout, release):
    """What was written down beside a release when it was made."""
    for kind in ("sha256", "unmanaged", "left-out", "update"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{layout.releases}/{release}.{kind}")


def remove_drafts(run, layout):
    if run.check_mode:
        return
    for name in paths.names(layout.releases):
        if name.startswith(".new-"):
            paths.remove(f"{layout.releases}/{name}")


def exchange(one, other):
    """Two directories trade places in one step: there is no moment without a release."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), other)
