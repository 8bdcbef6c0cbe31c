#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Brings another environment's code and content beside what is served here, with its addresses rewritten."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: clone
short_description: Bring another environment's code and content, ready to be switched to
description:
  - Database, uploads and code of the source are copied into a draft database, a directory and a release of their own.
  - The source is only read. Role C(environment) switches to the copy afterwards.
  - It can be killed anywhere and run again; what is there already is not brought again.
options:
  variables:
    description: The variable of role C(environment).
    type: dict
    required: true
  source:
    description:
      - C(id) of the source environment, and C(urls), the addresses that become the environment's own.
      - C(bundle), a directory on this node with the source's C(database.sql.zst), C(uploads.tar.zst) and
        C(content.tar.zst), where the source is on another node.
    type: dict
    required: true
author: Trueup
"""

EXAMPLES = r"""
- name: Bring the copy
  trueup.wordpress.clone:
    variables: "{{ trueup_environment }}"
    source: {id: 5b0f6a3e-8f6e-4d0b-9d53-0a6f0c1d2e3f, urls: ["http://5b0f6a3e.example.com"]}
"""

RETURN = r"""
rewritten:
  description: How many cells were rewritten, by table, and how many files, as C(uploads).
  type: dict
  returned: changed
notes: {description: What a person should know., type: list, returned: success}
"""

import os
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.trueup.wordpress.plugins.module_utils import dump
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.domains import address_of
from ansible_collections.trueup.wordpress.plugins.module_utils.content import stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import Staging, site_addresses
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import account
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import baseline as baselines
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.merge import address_taken_out
from ansible_collections.trueup.wordpress.plugins.module_utils.release import releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release.staging import run_beside
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths


class Copy:
    def __init__(self, run, variables, source):
        self.run = run
        self.variables = variables
        self.source = Layout(source["id"])
        self.urls = source["urls"]
        self.url = address_of(variables)
        self.bundle = source.get("bundle")
        self.layout = Layout(variables["id"], variables["release"]["id"])
        self.staging = Staging(run, self.layout, variables["content"]["id"])

    def bring(self):
        if self.staging.is_ready() and releases.is_there(self.layout):
            return {}
        if not self.run.change(f"content {self.staging.content_id}", "", f"copy of {self.source.id}"):
            return {}
        if not self.bundle and not os.path.isdir(self.source.current):
            raise Failure(f"Environment {self.source.id} is not on this node, so it cannot be copied.")
        user = account.ensure_user(self.run, self.layout)
        account.ensure_directories(self.run, self.layout, user)
        with ThreadPoolExecutor(1) as beside:
            release = beside.submit(self.release, user)
            content = None if self.staging.is_ready() else self.content()
            release.result()
        if content is None:
            return {}
        counts, rows, objects = content
        tree = baselines.files(f"{self.layout.release}/wp-content")
        baselines.save(self.layout, self.staging.content_id, rows, tree)
        self.staging.seal(user, objects=objects, acting=self.variables["type"] == "production")
        return counts

    def content(self):
        """Uploads and database as of now: how many cells were rewritten by table, the baseline's rows, and the
        StoredObjects."""
        self.staging.open()
        self.uploads()
        objects = self.database()
        moved = [(self.source.site, self.layout.site)]
        counts = self.staging.rewrite([(url, self.url) for url in self.addresses()], moved)
        return counts, self.baseline(), objects

    def release(self, user):
        version = self.variables["wordpress_version"]
        if not self.bundle:
            releases.from_release(self.run, self.layout, version, user, os.path.realpath(self.source.current))
            return
        unpacked = f"{self.bundle}/content"
        paths.remove(unpacked)
        paths.directory(unpacked, 0o700)
        self._untar("content.tar.zst", unpacked)
        releases.from_content(self.run, self.layout, version, user, unpacked)

    def uploads(self):
        if self.bundle:
            self._untar("uploads.tar.zst", self.staging.uploads)
            return
        if told := paths.copy(self.source.uploads, self.staging.uploads):
            self.run.notes.append(told)
        paths.directory(self.staging.uploads)

    def database(self):
        """The tables of the source; its StoredObjects."""
        if self.bundle:
            reader = self.run.start(["zstd", "-dcq", f"{self.bundle}/database.sql.zst"])
            dump.load_whole(self.run, reader, self.staging.database, hint="The database was not copied")
            return stored_objects.take(self.staging.database).called(self.source.database)
        source = self.source.database
        objects = stored_objects.read(source)
        reader = dump.started(self.run, source)
        dump.load(self.run, reader, self.staging.database, hint="The database was not copied", source=source)
        return objects

    def baseline(self):
        """What the databases of both have in common as of now: the drift of their contents is measured from it."""
        return baselines.database(self.staging.database, address_taken_out(self.url, self.layout.site))

    def addresses(self):
        """Those that are declared, and what the copied site itself says."""
        found = [one.rstrip("/") for one in site_addresses(self.staging.database) if "://" in one]
        return sorted({*self.urls, *found} - {self.url})

    def _untar(self, name, target):
        argv = [
            "tar",
            "--extract",
            "--zstd",
            "--no-same-owner",
            "--file",
            f"{self.bundle}/{name}",
            "--directory",
            target,
        ]
        self.run.command(argv, hint=f"{name} was not unpacked")


def bring(run, params, _fence):
    return {"rewritten": Copy(run, params["variables"], params["source"]).bring()}


def main():
    run_beside({"source": {"type": "dict", "required": True}}, bring)


if __name__ == "__main__":
    main()
