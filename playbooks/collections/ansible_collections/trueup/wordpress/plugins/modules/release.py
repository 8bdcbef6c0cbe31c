#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Brings one release of an environment's code beside the one that is served."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Bring a release of code, ready to be switched to
description:
  - The archive becomes a release directory on the pinned WordPress core. What is served is not touched.
  - What the archive has, replaces; plugins and themes that it lacks are carried over from the release that is served,
    unless the environment's files are locked.
  - It can be killed anywhere and run again; a release that is there already is not made again.
options:
  variables:
    description: The variable of role C(environment).
    type: dict
    required: true
  archive:
    description:
      - C(path) of a .tar.gz or .zip and its C(sha256). The action plugin is given a path of the controller, the module
        one of the node.
    type: dict
author: Trueup
"""

EXAMPLES = r"""
- name: Bring the release
  trueup.wordpress.release:
    variables: "{{ trueup_environment }}"
    archive: {path: /srv/site.tar.gz, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
"""

RETURN = r"""
wanted: {description: Whether the archive has to be sent first., type: bool, returned: always}
unmanaged: {description: Plugins and themes that were carried over., type: list, returned: always}
left_out: {description: What of the archive goes into no release., type: list, returned: always}
notes: {description: What a person should know., type: list, returned: always}
"""

import grp
import os
import shutil

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import account, core, egress, sandbox
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.release import composer_project, releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release import source_tree as trees
from ansible_collections.trueup.wordpress.plugins.module_utils.release.staging import run_beside
from ansible_collections.trueup.wordpress.plugins.module_utils.site_import.unpack import refuse_unless_as_sent, unpack
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

COMPOSER = ("install", "--no-dev", "--no-interaction", "--no-progress", "--prefer-dist", "--optimize-autoloader")
FETCH = ("--download-only", "--no-plugins", "--no-scripts")
"""Has Composer fetch packages into its cache, and run nothing of theirs or of the project's."""
PRIVATE = {"HOME": "/tmp", "COMPOSER_HOME": "/tmp/composer"}
"""A run's own /tmp, empty when it begins: the site has put no settings and no plugin there."""


class Release:
    def __init__(self, run, variables, archive):
        self.run = run
        self.variables = variables
        self.archive = archive
        self.layout = Layout(variables["id"], variables["release"]["id"])
        self.unpacked = f"{self.layout.site}/unpacking"

    def bring(self):
        """Facts for the result."""
        if releases.is_there(self.layout):
            left_out = releases.left_out(self.layout)
            return {"wanted": False, "unmanaged": releases.unmanaged(self.layout), "left_out": left_out}
        if self.run.check_mode:
            self.run.change(self.layout.release, "", str(self.variables["release"]["source_ref"]))
            return {"wanted": False, "unmanaged": [], "left_out": []}
        if not self.archive:
            return {"wanted": True, "unmanaged": [], "left_out": []}
        refuse_unless_as_sent("The archive", self.archive)
        user = account.ensure_user(self.run, self.layout)
        account.ensure_directories(self.run, self.layout, user)
        try:
            carried, left_out = self._make(user)
        finally:
            paths.remove(self.unpacked)
        return {"wanted": False, "unmanaged": carried, "left_out": left_out}

    def _make(self, user):
        paths.remove(self.unpacked)
        paths.directory(self.unpacked, 0o700)
        tree = f"{self.unpacked}/tree"
        paths.directory(tree)
        unpack(self.archive["path"], tree)
        top = trees.top_of(tree)
        version = self.variables["wordpress_version"]
        content = trees.content_of(top, version)
        extras = trees.extras_of(top, content, version)
        trees.refuse_incomplete(top, content, extras, is_git=self.variables["release"]["source_type"] == "git")
        left_out = trees.left_out(top, content, version, extras)
        if composer_project.content_of(top) == content:
            composer_project.refuse_without_packages(top, has_composer=shutil.which("composer") is not None)
            self.run.notes.append(composer_project.note(top, content))
        self._compose(top, content, user)
        served = os.path.realpath(self.layout.current)
        carry = self.variables["files"] != "locked" and os.path.isdir(f"{served}/wp-content")
        # Before the release is there: it appears with all that is told of it.
        releases.note_left_out(self.layout, left_out)
        carried = releases.from_content(
            self.run,
            self.layout,
            version,
            user,
            content,
            carry_from=f"{served}/wp-content" if carry else None,
            extras=extras,
        )
        return carried, left_out

    def _compose(self, top, content, user):
        """Composer's own packages, as the site's user: what a package runs may do no more than the site itself.

        For a closed environment they are fetched first; what they run comes after that, and reaches nobody.
        """
        projects = [path for path in dict.fromkeys((top, content)) if paths.is_file(f"{path}/composer.json")]
        composer = shutil.which("composer")
        if projects and not composer:
            self.run.notes.append("The source has a composer.json, but composer is not on this node: it was not run.")
            return
        environment = {"HOME": self.layout.tmp, "COMPOSER_HOME": f"{self.layout.tmp}/composer"}
        if projects and egress.is_closed(self.variables):
            egress.close_early(self.run, self.layout, self.variables, user)
            environment = {**PRIVATE, "COMPOSER_CACHE_DIR": f"{self.unpacked}/fetched"}
            self._fetch(composer, projects, user, environment)
            environment["COMPOSER_DISABLE_NETWORK"] = "1"
        for project in projects:
            paths.directory(self.unpacked, 0o711)
            core.own(self.run, project, user.pw_uid, user.pw_gid)
            self._install(composer, project, environment)

    def _fetch(self, composer, projects, user, environment):
        """Fetch packages for a closed environment, with the group that reaches others, before anything of them runs.

        What the site runs meanwhile gets neither at the project, by which it could have something else fetched, nor at
        the cache: the directory above them is the group's alone.
        """
        fetched = environment["COMPOSER_CACHE_DIR"]
        paths.directory(fetched, 0o700, user.pw_uid, user.pw_gid)
        for project in projects:
            core.own(self.run, project, user.pw_uid, user.pw_gid)
        group = egress.fetching_group(self.run, self.variables)
        paths.directory(self.unpacked, 0o710, 0, grp.getgrnam(group).gr_gid if group else user.pw_gid)
        for project in projects:
            self._install(composer, project, environment, *FETCH, group=group)
        core.own(self.run, fetched, user.pw_uid, user.pw_gid)

    def _install(self, composer, project, environment, *options, group=None):
        sandbox.ask(
            self.run,
            self.layout,
            [composer, *COMPOSER, *options, "--working-dir", project],
            seconds=600,
            group=group,
            environment=environment,
            hint="composer install failed",
        )


def bring(run, params, _fence):
    return Release(run, params["variables"], params["archive"]).bring()


def main():
    run_beside({"archive": {"type": "dict"}}, bring)


if __name__ == "__main__":
    main()
