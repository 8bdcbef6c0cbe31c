# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The release that an update results in: another one's code with some plugins and themes, or core, exchanged.

What was rehearsed is noted beside the release (``<release id>.update``): whoever sees the note need not make it again.
"""

from __future__ import annotations

import json
import os
import re

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.release import releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release.source_tree import extras_of
from ansible_collections.trueup.wordpress.plugins.module_utils.site_import.unpack import refuse_unless_as_sent, unpack
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

MOST_BYTES = 1 << 30
MOST_MEMBERS = 50_000
HEAD = 8192
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_rehearsed(layout):
    return releases.is_there(layout) and paths.is_file(_note(layout))


def note_rehearsed(layout, version, packages):
    made_of = [{name: one[name] for name in ("kind", "key", "version", "sha256")} for one in packages]
    text = json.dumps({"wordpress_version": version, "packages": made_of}, sort_keys=True)
    write_durably(_note(layout), text.encode(), 0o644)


def _note(layout):
    return f"{layout.releases}/{layout.release_id}.update"


def make(run, layout, version, user, source, packages, work):
    """The release, made of the release directory ``source``; ``work`` is an empty directory of root's."""
    content = f"{work}/wp-content"
    if told := paths.copy(f"{source}/wp-content", content, leave_out=releases.LEFT_OUT):
        run.notes.append(told)
    for number, package in enumerate(packages):
        unpacked = f"{work}/package-{number}"
        paths.directory(unpacked)
        _put_in(package, content, unpacked)
    former = core.version_of(source)
    extras = extras_of(source, f"{source}/wp-content", former) if former and core.has(former) else ()
    releases.carry_unmanaged(source, layout)
    releases.from_content(run, layout, version, user, content, extras=extras, ours=True)


def _put_in(package, content, unpacked):
    """A package in place of what it updates."""
    kind, directory = package["kind"], package["directory"]
    if kind not in ("plugins", "themes") or not NAME.fullmatch(directory):
        raise Failure(f"{kind}/{directory} is no plugin or theme that can be updated.")
    refuse_unless_as_sent(f"The package of {directory}", package)
    unpack(package["path"], unpacked, most_bytes=MOST_BYTES, most_members=MOST_MEMBERS)
    if paths.names(unpacked) != [directory]:
        raise _unlike(package, f"does not hold the one directory {directory}/")
    main = f"{unpacked}/{package['key']}" if kind == "plugins" else f"{unpacked}/{directory}/style.css"
    found = _version_in(main)
    if found != package["version"]:
        raise _unlike(package, f"holds version {found or 'none'}")
    paths.remove(f"{content}/{kind}/{directory}")
    # A site may have a link in the place of its directory of plugins: none is gone through.
    paths.room(f"{content}/{kind}/{directory}")
    os.rename(f"{unpacked}/{directory}", f"{content}/{kind}/{directory}")


def _version_in(path):
    """As the header of a plugin's main file or a theme's stylesheet says."""
    head = paths.head(path, HEAD).decode("utf-8", "replace").replace("\r", "\n")
    found = re.search(r"^(?:[ \t]*<\?php)?[ \t/*#@]*Version:(.*)$", head, re.MULTILINE | re.IGNORECASE)
    return re.sub(r"\s*(?:\*/|\?>).*", "", found.group(1)).strip() if found else None


def _unlike(package, what):
    return Failure(
        f"The package of {package['kind']}/{package['directory']} {package['version']} {what}. Nothing of it was used; "
        "look at the mirror.",
        trueup_code="UPDATE_UNTRUSTED",
    )
