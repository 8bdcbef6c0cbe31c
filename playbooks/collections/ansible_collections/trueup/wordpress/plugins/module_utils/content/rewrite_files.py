# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Addresses replaced in what plugins generate under uploads: stylesheets and JSON that browsers load as they are."""

from __future__ import annotations

import os
import stat

from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

SUFFIXES = (".css", ".json")
LARGEST = 4 << 20
"""Bytes of a file that is rewritten; nothing that a browser loads as a stylesheet is larger."""


def rewrite_files(directory, rewriter, changes):
    """Rewrite the generated files of staged uploads, which no site's user can reach; how many changed.

    What stays is told in ``changes`` as ``*.css`` or ``*.json`` of ``uploads``.
    """
    if not rewriter.rules or not paths.is_directory(directory):
        return 0
    count = 0
    with paths.at(directory) as (tree, name):
        # The walk is over before anything appears in a directory.
        found = [path for path, _, _, kind in tree.walk(name) if kind == stat.S_IFREG and path.endswith(SUFFIXES)]
        for path in found:
            place = f"{name}/{path}"
            old = tree.read(place, LARGEST)
            if old is None:
                continue
            reading = rewriter.read(old)
            for reason, example in reading.left:
                changes.leave("uploads", f"*{os.path.splitext(path)[1]}", reason, example)
            if reading.value != old:
                status = tree.status(place)
                tree.replace(place, reading.value, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
                count += 1
    return count
