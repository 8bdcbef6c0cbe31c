#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Brings a backup's content and code beside what is served, each object verified first; serves nothing of it."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Bring a backup, ready to be switched to
description:
  - Every object is downloaded and held against the size and sha256 of the manifest before anything is staged.
  - Of a backup of the database alone the files stay, and the other way round.
options:
  variables:
    description: The variable of role C(environment).
    type: dict
    required: true
  backup:
    description: C(manifest) of the backup, and C(urls), the address of each of its objects.
    type: dict
    required: true
  staged:
    description: Under which id the content is got ready, where its own was applied here once and left.
    type: str
author: Trueup
"""

EXAMPLES = r"""
- name: Bring the backup
  trueup.wordpress.restore:
    variables: "{{ trueup_environment }}"
    backup: {manifest: {scope: db, objects: {}}, urls: {database.sql.zst: "https://…"}}
"""

RETURN = r"""
rewritten:
  description: How many cells were rewritten, by table, and how many files, as C(uploads).
  type: dict
  returned: changed
notes: {description: What a person should know., type: list, returned: success}
"""

import os

from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.domains import address_of
from ansible_collections.trueup.wordpress.plugins.module_utils.content import archived
from ansible_collections.trueup.wordpress.plugins.module_utils.content.archived import DATABASE, FILES
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import Staging, site_addresses
from ansible_collections.trueup.wordpress.plugins.module_utils.content.transfer import download
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import account
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.release import releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release.staging import run_beside
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths


class Restore:
    def __init__(self, run, variables, backup, staged=None):
        self.run = run
        self.variables = variables
        self.manifest, self.urls = backup["manifest"], backup["urls"]
        self.layout = Layout(variables["id"], variables["release"]["id"])
        self.staging = Staging(run, self.layout, staged or variables["content"]["id"])
        self.place = f"/var/tmp/trueup-{variables['id']}"

    def bring(self):
        if self.staging.is_ready() and (FILES not in self.urls or releases.is_there(self.layout)):
            return {}
        if not self.run.change(f"content {self.staging.content_id}", "", f"backup {self.manifest['id']}"):
            return {}
        paths.remove(self.place)
        os.mkdir(self.place, 0o700)
        try:
            for name, url in self.urls.items():
                download(url, f"{self.place}/{name}", self.manifest["objects"][name])
            return self.stage()
        finally:
            paths.remove(self.place)

    def stage(self):
        user = account.ensure_user(self.run, self.layout)
        account.ensure_directories(self.run, self.layout, user)
        self.staging.open()
        if FILES in self.urls:
            self.files(user)
        counts, objects = self.database() if DATABASE in self.urls else ({}, None)
        # In a copy of something else nothing acts by itself.
        acting = self.manifest["environment_id"] == self.layout.id or self.variables["type"] == "production"
        self.staging.seal(
            user, database=DATABASE in self.urls, uploads=FILES in self.urls, objects=objects, acting=acting
        )
        return counts

    def files(self, user):
        unpacked = f"{self.place}/files"
        os.mkdir(unpacked)
        argv = ["tar", "--extract", "--zstd", "--no-same-owner", "--directory", unpacked]
        self.run.command([*argv, "--file", f"{self.place}/{FILES}"], hint="The files were not unpacked")
        if told := paths.copy(f"{unpacked}/uploads", self.staging.uploads):
            self.run.notes.append(told)
        paths.directory(self.staging.uploads)
        version = self.variables["wordpress_version"]
        releases.from_content(self.run, self.layout, version, user, f"{unpacked}/wp-content")

    def database(self):
        """How many cells were rewritten, by table, and the StoredObjects that go with the tables."""
        was = Layout(self.manifest["environment_id"])
        objects = archived.load(self.run, f"{self.place}/{DATABASE}", self.staging.database, was.database)
        now = address_of(self.variables)
        said = [one.rstrip("/") for one in site_addresses(self.staging.database) if "://" in one]
        former = {self.manifest["url"], *said} - {now}
        moved = [(was.site, self.layout.site)]
        return self.staging.rewrite([(one, now) for one in sorted(former)], moved), objects


def bring(run, params, _fence):
    return {"rewritten": Restore(run, params["variables"], params["backup"], params["staged"]).bring()}


def main():
    run_beside({"backup": {"type": "dict", "required": True}, "staged": {"type": "str"}}, bring)


if __name__ == "__main__":
    main()
