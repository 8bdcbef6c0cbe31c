#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Brings a site's export from the web beside what is served, with its addresses rewritten."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: site_import
short_description: Bring a site's export, ready to be switched to
description:
  - A .tar.gz with C(db.sql), C(files/) (a wp-content) and optionally C(meta.json) is fetched, judged whole, and made
    into a draft database, a directory of uploads and a release. What is served is not touched.
  - It can be killed anywhere and run again; what is there already is not brought again.
options:
  variables:
    description: The variable of role C(environment); its content says C(archive_url).
    type: dict
    required: true
  source:
    description:
      - C(allowed_hosts), internal names or addresses that it may come from, and C(most_mb), what it may be packed.
    type: dict
author: Trueup
"""

EXAMPLES = r"""
- name: Bring the export
  trueup.wordpress.site_import:
    variables: "{{ trueup_environment }}"
    source: {allowed_hosts: [files.internal]}
"""

RETURN = r"""
rewritten:
  description: How many cells were rewritten, by table, and how many files, as C(uploads).
  type: dict
  returned: success
notes: {description: What a person should know., type: list, returned: success}
"""

import contextlib
import os

from ansible_collections.trueup.wordpress.plugins.module_utils import room
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.domains import address_of
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import Staging
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import account
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.release import releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release.staging import run_beside
from ansible_collections.trueup.wordpress.plugins.module_utils.site_import import archive as archives
from ansible_collections.trueup.wordpress.plugins.module_utils.site_import import database as databases
from ansible_collections.trueup.wordpress.plugins.module_utils.site_import import fetch as fetching
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

DATABASES = "/var/lib/mysql"
SPARE = 256 << 20
"""Bytes that stay free on the node's disks."""


class Import:
    def __init__(self, run, variables, source):
        self.run = run
        self.variables = variables
        self.source = source
        self.layout = Layout(variables["id"], variables["release"]["id"])
        self.staging = Staging(run, self.layout, variables["content"]["id"])
        self.work = f"{self.layout.site}/importing"

    def bring(self):
        """How many cells were rewritten, by table."""
        if self.staging.is_ready() and releases.is_there(self.layout):
            return {}
        url = self.variables["content"]["archive_url"]
        if not self.run.change(f"content {self.staging.content_id}", "", f"import of {fetching.shown(url)}"):
            return {}
        user = account.ensure_user(self.run, self.layout)
        account.ensure_directories(self.run, self.layout, user)
        try:
            return self._bring(url, user)
        except (Failure, OSError):
            self._discard()
            raise
        finally:
            paths.remove(self.work)

    def _bring(self, url, user):
        paths.remove(self.work)
        paths.directory(self.work, 0o700)
        archive, tree = f"{self.work}/archive.tar.gz", f"{self.work}/tree"
        fetching.fetch(url, archive, self.source.get("allowed_hosts") or (), self._limits())
        export = archives.judged(archive)
        refuse_without_room(self.work, export)
        os.mkdir(tree)
        archives.unpack(archive, tree)
        os.unlink(archive)
        # A release of an attempt that was killed may be of what the address gave then.
        self._discard()
        self.staging.open()
        foreign, objects = databases.load(self.run, self.staging.database, f"{tree}/db.sql", export.prefix)
        self._uploads(f"{tree}/files/uploads")
        counts = self._rewrite(export)
        releases.from_content(
            self.run, self.layout, self.variables["wordpress_version"], user, f"{tree}/files", ours=True
        )
        self.staging.seal(user, objects=objects, acting=self.variables["type"] == "production")
        self._tell(export, foreign)
        return counts

    def _limits(self):
        most = self.source.get("most_mb")
        return fetching.Limits(most_bytes=int(most) << 20) if most else fetching.Limits()

    def _rewrite(self, export):
        url = address_of(self.variables)
        found = [export.source_url] if export.source_url else []
        found += databases.addresses(self.staging.database)
        counts = self.staging.rewrite([(one, url) for one in dict.fromkeys(found) if one != url])
        databases.settle(self.staging.database, url)
        return counts

    def _uploads(self, uploads):
        if os.path.isdir(uploads):
            paths.remove(self.staging.uploads)
            os.rename(uploads, self.staging.uploads)
            paths.directory(self.staging.uploads)

    def _discard(self):
        """Nothing of an attempt stays, but for what is served."""
        served = os.path.realpath(self.layout.current)
        if releases.is_there(self.layout) and served != os.path.realpath(self.layout.release):
            releases.discard(self.layout)
        with contextlib.suppress(Failure):
            self.staging.discard()

    def _tell(self, export, foreign):
        if export.left_out:
            self.run.notes.append(f"Left behind, because it belongs to the former host: {', '.join(export.left_out)}.")
        if foreign:
            self.run.notes.append(f"Tables without the site's prefix were kept as they are: {', '.join(foreign[:20])}.")


def refuse_without_room(directory, export):
    """The files are there twice for a moment, and a database takes more room than its dump."""
    wanted = {directory: 2 * export.files_bytes + export.database_bytes, DATABASES: 3 * export.database_bytes}
    if lack := room.lacking(wanted, SPARE):
        needed, free = lack
        raise Failure(
            f"The archive needs {needed >> 20} MiB on the node's disk, and {free >> 20} MiB are free. Free some, "
            "or move the site to another node. Nothing was changed.",
            trueup_code="IMPORT_NO_ROOM",
        )


def bring(run, params, _fence):
    return {"rewritten": Import(run, params["variables"], params["source"] or {}).bring()}


def main():
    run_beside({"source": {"type": "dict"}}, bring)


if __name__ == "__main__":
    main()
