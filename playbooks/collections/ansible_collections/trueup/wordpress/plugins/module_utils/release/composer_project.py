# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A source that is a Composer project, as Bedrock's: its wp-content has another name, and is filled by packages."""

from __future__ import annotations

import json
import os
import posixpath

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

USUAL = "web/app"
"""Bedrock's name for wp-content, where nothing says another."""
PARTS = ("plugins", "themes", "mu-plugins")
MOST_READ = 1 << 20
LONGEST_PATH = 200
NOTE = (
    "The source is a Composer project: its {content}/ is served as wp-content on the pinned WordPress. Its settings "
    "(config/, .env) and what Composer installs beside {content}/ (vendor/) are not in the release: a plugin that "
    "needs packages from there has to bring them itself."
)


def content_of(top):
    """The directory below ``top`` that its ``composer.json`` has plugins and themes installed into, by its path.

    None where there is no such project, or where the directory is called wp-content. One outside of the source, or
    behind a link, is none.
    """
    declared = {posixpath.dirname(path) for path in _installed_into(top)}
    # More than one, and nobody can say which of them visitors are meant to have.
    for name in (*declared, USUAL) if len(declared) < 2 else ():
        if name and posixpath.basename(name) != "wp-content" and _is_content(top, name):
            return f"{top}/{name}"
    return None


def refuse_without_packages(top, has_composer):
    """Raise Failure where nobody can install what the project only names."""
    if has_composer or not _composer(top).get("require") or paths.is_file(f"{top}/vendor/autoload.php"):
        return
    raise Failure(
        "The source is a Composer project without its packages, and this node has no composer to install them. "
        "Install composer on the node, or deploy an archive in which `composer install --no-dev` has run.",
        trueup_code="SOURCE_INCOMPLETE",
    )


def note(top, content):
    return NOTE.format(content=os.path.relpath(content, top))


def _installed_into(top):
    """What ``extra.installer-paths`` says of plugins and themes, without ``{$name}``: ``web/app/plugins``."""
    extra = _composer(top).get("extra")
    declared = extra.get("installer-paths") if isinstance(extra, dict) else None
    said = [path.split("{", 1)[0] for path in declared] if isinstance(declared, dict) else []
    # What nobody can read, or no disk take, names no directory of anybody's.
    plain = [posixpath.normpath(path) for path in said if path.isprintable() and len(path) <= LONGEST_PATH]
    return {path for path in plain if posixpath.basename(path) in PARTS and not path.startswith(("/", ".."))}


def _composer(top):
    path = f"{top}/composer.json"
    text = (paths.read(path, MOST_READ) or b"") if paths.is_file(path) else b""
    try:
        found = json.loads(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):  # Composer itself says what is wrong with it
        return {}
    return found if isinstance(found, dict) else {}


def _is_content(top, name):
    parts = name.split("/")
    way = [f"{top}/{'/'.join(parts[:number])}" for number in range(1, len(parts) + 1)]
    return all(map(paths.is_directory, way)) and any(paths.is_directory(f"{way[-1]}/{part}") for part in PARTS)
