# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What an unpacked source is: a whole WordPress, a wp-content, a Composer project, or what has a wp-content in it."""

from __future__ import annotations

import os
import re
import stat

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.release import composer_project
from ansible_collections.trueup.wordpress.plugins.module_utils.release.releases import FOREIGN_DROP_INS, LEFT_OUT
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths
from ansible_collections.trueup.wordpress.plugins.module_utils.tree.tree import Tree

PARTS = ("plugins", "themes", "mu-plugins")
ITSELF = (*PARTS, "wp-content", "wp-includes")
DEEPEST = 4
POINTER = b"version https://git-lfs.github.com/spec/v1\n"
POINTER_BYTES = range(len(POINTER), 1025)
NAMED = 5
MOST_TOLD = 100
NEVER_SERVED = ("wp-config.php", "wp-config-sample.php", "wp-content", "node_modules")


def top_of(directory):
    """The tree itself: what hosting sites wrap into one directory is unwrapped."""
    names = paths.names(directory)
    only = f"{directory}/{names[0]}" if len(names) == 1 else None
    if only and names[0] not in ITSELF and paths.is_directory(only):
        return only
    return directory


def content_of(top, version):
    """The directory that becomes wp-content.

    A whole tree must hold the WordPress that is pinned: its core is not used, the node's own pristine copy is.
    """
    if project := composer_project.content_of(top):
        return project
    whole = next((tree for tree in (top, *_children(top)) if core.version_of(tree)), None)
    if whole:
        found = core.version_of(whole)
        if found != version:
            raise _unusable(
                f"The source holds WordPress {found}, but spec.wordpress.version pins {version}. "
                f"Pin {found}, or take core out of the source."
            )
        if not paths.is_directory(f"{whole}/wp-content"):
            raise _unusable("The source holds WordPress without wp-content. Add it.")
        return f"{whole}/wp-content"
    if paths.is_directory(f"{top}/wp-content"):
        return f"{top}/wp-content"
    if _has_parts(top):
        return top
    found = [path for path in _deeper(top, DEEPEST) if os.path.basename(path) == "wp-content" and _has_parts(path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(os.path.relpath(path, top) for path in found)[:5])
        raise _unusable(f"The source has more than one wp-content ({names}). Keep one.")
    raise _unusable("The source has neither wp-content nor plugins, themes or mu-plugins at its top. Add wp-content/.")


def extras_of(top, content, version):
    """Names at the top of what a whole tree, or a project, serves, which visitors ask for, such as robots.txt."""
    tree, pristine = os.path.dirname(content), set(paths.names(core.pristine(version)))
    # A project's own top is no visitor's: there lie its composer.json and its README.
    is_served = tree != top and composer_project.content_of(top) == content
    if core.version_of(tree) is None and not is_served:
        return ()
    names = [name for name in paths.names(tree) if name not in pristine and name not in NEVER_SERVED]
    return tuple(f"{tree}/{name}" for name in names if not name.startswith(".") and _is_file(f"{tree}/{name}"))


def refuse_incomplete(top, content, extras, *, is_git):
    """Raise Failure where the source only names a part of what would be served: a submodule, a file that Git LFS keeps.

    Of a submodule an archive has an empty directory, which nothing else is in Git's own.
    """
    base = os.path.relpath(content, top)
    declared = _submodules_of(top)
    submodules, pointers, filled = [], [], set()
    with Tree(top) as tree:
        for path, directory, name, kind in tree.walk("" if base == "." else base, leave_out=LEFT_OUT):
            filled.add(os.path.dirname(path))
            whole = os.path.normpath(f"{base}/{path}")
            if kind == stat.S_IFDIR and path not in filled and (is_git or whole in declared):
                submodules.append(whole)
            elif kind == stat.S_IFREG and _size(directory, name) in POINTER_BYTES:
                pointers += [whole] if _is_pointer(tree, whole) else []
        if not filled and not paths.names(content) and (is_git or base in declared):
            submodules.append(base)
        files = [os.path.relpath(path, top) for path in extras]
        pointers += [path for path in files if _is_pointer(tree, path)]
    reasons = [f"{_named(submodules)}: Git submodules"] if submodules else []
    reasons += [f"{_named(pointers)}: in Git LFS"] if pointers else []
    if reasons:
        raise Failure(
            f"The source only names a part of itself ({'; '.join(reasons)}), and a deploy does not fetch those. "
            "Put the files themselves into the repository, or deploy an archive that holds them.",
            trueup_code="SOURCE_INCOMPLETE",
        )


def left_out(top, content, version, extras):
    """What of the source goes into no release, below its top, directories with a slash: at most ``MOST_TOLD``, sorted.

    Core of a whole tree is not told: the release has it, from elsewhere. Files at its top that were changed are.
    """
    found = [f"{content}/{name}" for name in paths.names(content) if name in (*LEFT_OUT, *FOREIGN_DROP_INS)]
    inside = content
    while inside != top:
        directory = os.path.dirname(inside)
        names = [name for name in paths.names(directory) if not name.startswith(".git")]
        beside = [f"{directory}/{name}" for name in names if f"{directory}/{name}" not in (inside, *extras)]
        found += [path for path in beside if not _is_core(path, version)]
        inside = directory
    told = [f"{os.path.relpath(path, top)}{'/' if paths.is_directory(path) else ''}" for path in sorted(found)]
    # One a line; a name that no line can hold is nobody's to miss.
    return [name for name in told if name.isprintable()][:MOST_TOLD]


def _is_core(path, version):
    """Whether it is what the pinned WordPress has in the place of it, too."""
    if core.version_of(os.path.dirname(path)) is None:
        return False
    own = f"{core.pristine(version)}/{os.path.basename(path)}"
    if paths.is_directory(path) or not paths.is_file(path):
        return paths.is_directory(own)
    return paths.is_file(own) and paths.digest(own) == paths.digest(path)


def _submodules_of(top):
    """Where a repository says that its submodules are; nothing where it says none."""
    text = (paths.read(f"{top}/.gitmodules") or b"") if paths.is_file(f"{top}/.gitmodules") else b""
    said = re.findall(r"^\s*path\s*=\s*(\S.*?)\s*$", text.decode("utf-8", "replace"), re.MULTILINE)
    return {os.path.normpath(path) for path in said}


def _size(directory, name):
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except OSError:
        return 0


def _is_pointer(tree, path):
    return (tree.read(path) or b"").startswith(POINTER)


def _named(names):
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    said = ", ".join(sorted(names)[:NAMED]) + more
    return said.encode("utf-8", "replace").decode("utf-8")


def _children(top):
    return [f"{top}/{name}" for name in paths.names(top) if paths.is_directory(f"{top}/{name}")]


def _deeper(top, depth):
    for child in _children(top):
        if os.path.basename(child) in ("node_modules", "vendor", ".git"):
            continue
        yield child
        if depth > 1 and os.path.basename(child) != "wp-content":
            yield from _deeper(child, depth - 1)


def _has_parts(directory):
    return any(paths.is_directory(f"{directory}/{part}") for part in PARTS)


def _is_file(path):
    return paths.is_file(path) and os.path.splitext(path)[1] not in (".sql", ".php")


def _unusable(message):
    return Failure(message, trueup_code="SOURCE_UNUSABLE")
