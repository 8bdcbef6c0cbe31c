#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes the release that an update results in beside the one that is served, and rehearses it on a copy."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: update
short_description: Make an updated release and rehearse it, ready to be switched to
description:
  - A copy of the release that C(release.made_from) names, on the core that the variable names, with the packages in
    place of the plugins and themes that they update. What is served is not touched.
  - The new release is then tried on a throwaway copy of files and database, which nobody reaches and which reaches
    nobody. If it is not healthy there, it is removed again (C(UPDATE_UNHEALTHY)).
  - It can be killed anywhere and run again; what was rehearsed already is not made again.
options:
  variables:
    description: The variable of role C(environment), with the WordPress version that the update results in.
    type: dict
    required: true
  packages:
    description:
      - Each C(kind) (plugins or themes), C(key) (main file or directory), C(directory), C(version), C(path) of a .zip
        and its C(sha256). The action plugin is given paths of the controller, the module those of the node.
    type: list
    elements: dict
    default: []
author: Trueup
"""

EXAMPLES = r"""
- name: Rehearse the update
  trueup.wordpress.update:
    variables: "{{ trueup_environment }}"
    packages:
      - {kind: plugins, key: akismet/akismet.php, directory: akismet, version: "5.4", path: /srv/akismet.5.4.zip}
"""

RETURN = r"""
wanted: {description: Whether the packages have to be sent first., type: bool, returned: always}
notes: {description: What a person should know., type: list, returned: always}
"""

import os

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import account
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.ledger import Ledger
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.release import releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release import updated_tree as trees
from ansible_collections.trueup.wordpress.plugins.module_utils.release.rehearsal import Rehearsal
from ansible_collections.trueup.wordpress.plugins.module_utils.release.staging import run_beside
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths


class Update:
    def __init__(self, run, variables, packages):
        self.run = run
        self.variables = variables
        self.packages = packages
        self.layout = Layout(variables["id"], variables["release"]["id"])
        self.work = f"{self.layout.site}/updating"

    def prepare(self, unit):
        """Facts for the result; ``unit`` is the scope that the rehearsal ends with."""
        if trees.is_rehearsed(self.layout):
            return {"wanted": False}
        source = self._source()
        told = ", ".join(f"{one['directory']} {one['version']}" for one in self.packages)
        if not self.run.change(self.layout.release, source, f"WordPress {self._version}\n{told}"):
            return {"wanted": False}
        if any("path" not in one for one in self.packages):
            return {"wanted": True}
        user = account.ensure_user(self.run, self.layout)
        account.ensure_directories(self.run, self.layout, user)
        releases.discard(self.layout)
        try:
            self._make(source, user)
            Rehearsal(self.run, self.layout, self.variables, user).hold(unit)
        except (Failure, OSError, ValueError):
            releases.discard(self.layout)
            raise
        finally:
            paths.remove(self.work)
        trees.note_rehearsed(self.layout, self._version, self.packages)
        return {"wanted": False}

    @property
    def _version(self):
        return self.variables["wordpress_version"]

    def _source(self):
        """The release that is updated; what was served of this one already must not be made anew."""
        ledger = Ledger(self.layout.manifest)
        served = os.path.basename(os.path.realpath(self.layout.current))
        if self.layout.release_id in (served, *ledger.releases):
            raise Failure(
                f"Release {self.layout.release_id} is in use, and was not made by an update. Give another id."
            )
        source = f"{self.layout.releases}/{self.variables['release'].get('made_from') or served}"
        if not paths.is_directory(f"{source}/wp-content"):
            raise Failure(f"There is no release {os.path.basename(source)} on this node to update. Correct made_from.")
        return source

    def _make(self, source, user):
        paths.remove(self.work)
        paths.directory(self.work, 0o700)
        trees.make(self.run, self.layout, self._version, user, source, self.packages, self.work)


def bring(run, params, fence):
    return Update(run, params["variables"], params["packages"]).prepare(fence.unit if fence else None)


def main():
    run_beside({"packages": {"type": "list", "elements": "dict", "default": []}}, bring)


if __name__ == "__main__":
    main()
