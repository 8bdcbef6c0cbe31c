# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What an unpacked source is: a whole WordPress, a wp-content, or a repository with a wp-content somewhere in it."""

from __future__ import annotations

import os

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

PARTS = ("plugins", "themes", "mu-plugins")
ITSELF = (*PARTS, "wp-content", "wp-includes")
DEEPEST = 4
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
    """Names at the top of a whole tree that core lacks and visitors ask for, such as robots.txt."""
    if core.version_of(os.path.dirname(content)) is None:
        return ()
    tree, pristine = os.path.dirname(content), set(paths.names(core.pristine(version)))
    names = [name for name in paths.names(tree) if name not in pristine and name not in NEVER_SERVED]
    return tuple(f"{tree}/{name}" for name in names if not name.startswith(".") and _is_file(f"{tree}/{name}"))


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
