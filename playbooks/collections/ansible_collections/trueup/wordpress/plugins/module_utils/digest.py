# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The two digests of a manifest: of a role's own files, and of the variable that it was given.

One implementation for both sides: the action plugins import it, the reconciler loads it by its path. Stdlib only.
"""

from __future__ import annotations

import hashlib
import json
import os

COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLUGINS = ("action", "module_utils", "modules")
_SKIPPED = {"__pycache__", "molecule", "tests"}


def role_digest(paths):
    """sha256 in hex over each file's path within the collection and its bytes; directories stand for all they hold."""
    digest = hashlib.sha256()
    for path in sorted(set(_files(paths)), key=lambda path: os.path.relpath(path, COLLECTION)):
        with open(path, "rb") as file:
            content = file.read()
        name = os.path.relpath(path, COLLECTION).replace(os.sep, "/").encode()
        digest.update(b"%d:%s%d:" % (len(name), name, len(content)))
        digest.update(content)
    return digest.hexdigest()


def role_paths(role, collection=COLLECTION):
    """What a role's digest is made from: its directory and the plugins that are not named after another role.

    ``node_begin.py`` belongs to role ``node``, the package ``environment`` and ``environment.py`` to role
    ``environment``; ``files.py`` and the package ``release`` to every role.
    """
    others = [other for other in os.listdir(os.path.join(collection, "roles")) if other != role]
    paths = [os.path.join(collection, "roles", role)]
    for kind in PLUGINS:
        for name in sorted(os.listdir(os.path.join(collection, "plugins", kind))):
            stem = os.path.splitext(name)[0]
            foreign = any(stem == other or stem.startswith(f"{other}_") for other in others)
            if stem not in _SKIPPED and not foreign:
                paths.append(os.path.join(collection, "plugins", kind, name))
    return paths


def variables_digest(variables):
    """sha256 in hex of the canonical JSON of a role's variable, without ``job``: who applied it does not matter."""
    data = {key: value for key, value in variables.items() if key != "job"}
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _files(paths):
    for path in paths:
        if os.path.isfile(path):
            yield os.path.abspath(path)
        for directory, subdirectories, names in os.walk(path):
            subdirectories[:] = [name for name in subdirectories if name not in _SKIPPED]
            yield from (os.path.abspath(os.path.join(directory, name)) for name in names if not name.endswith(".pyc"))
