# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The environment's Linux user, which cannot log in, and the directories that only it and nginx get into."""

from __future__ import annotations

import os
import pwd

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import place
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

WEB_SERVER = "www-data"
CACHES = "/var/cache/nginx"


def ensure_user(run, layout):
    """The user's entry; None in check mode while it does not exist."""
    try:
        return pwd.getpwnam(layout.user)
    except KeyError:
        pass
    if not run.change(f"user {layout.user}", "", layout.user):
        return None
    argv = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", layout.site]
    run.command([*argv, "--shell", "/usr/sbin/nologin", layout.user], hint=f"User {layout.user} was not made")
    return pwd.getpwnam(layout.user)


def ensure_directories(run, layout, user):
    """What the environment's user may change is its own; what decides how it runs is root's."""
    uid, gid = (user.pw_uid, user.pw_gid) if user else (0, 0)
    is_there = paths.is_directory(layout.site)
    if user and (is_there or run.change(layout.site, "", "directory")):
        if not is_there:
            paths.directory(layout.site)
        place.door(run, layout.site, gid, pwd.getpwnam(WEB_SERVER).pw_uid)
    for path in (layout.releases, layout.shared):
        place.directory(run, path, 0o755)
    place.owned(run, layout.uploads, 0o755, uid, gid)
    place.directory(run, layout.tmp, 0o700, uid, gid)
    place.directory(run, layout.logs, 0o750, uid, gid)
    place.directory(run, CACHES, 0o755)
    place.directory(run, os.path.dirname(layout.pool), 0o755)
    place.directory(run, os.path.dirname(layout.manifest), 0o755)
