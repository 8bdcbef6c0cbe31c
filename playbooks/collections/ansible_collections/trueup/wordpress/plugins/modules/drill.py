#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Restores a backup into a throwaway copy beside what is served, checks it, and takes the copy away."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: drill
short_description: Restore a backup into a throwaway copy and check it
description:
  - Every object is downloaded and held against the size and sha256 of the manifest. All tables must come back with the
    rows that the backup has, all files with their content, and WordPress must make its home page of it.
  - What is served is not touched. The copy has a database and a user of its own, no network, no mail and no name; it is
    taken away whatever comes of it. Where the disk has too little room, nothing is done (C(DRILL_NO_ROOM)).
  - It can be killed anywhere and run again. With I(clear) it only takes away what such a run left.
options:
  variables:
    description: The variable of role C(environment), with the WordPress version that the backup stands on.
    type: dict
    required: true
  backup:
    description: C(manifest) of the backup, and C(urls), the address of each of its objects. Not for I(clear).
    type: dict
  clear:
    description: Whether only what a run left that was killed is to go.
    type: bool
    default: false
author: Trueup
"""

EXAMPLES = r"""
- name: Drill the backup
  trueup.wordpress.drill:
    variables: "{{ trueup_environment }}"
    backup: {manifest: {scope: db, objects: {}}, urls: {database.sql.zst: "https://…"}}
"""

RETURN = r"""
drilled:
  description: What was found to be whole, C(tables), C(rows), C(files), and how many C(pages) were made of it.
  type: dict
  returned: success, but in check mode and with I(clear)
"""

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.release.drill import Drill, clear
from ansible_collections.trueup.wordpress.plugins.module_utils.release.staging import run_beside


def drill(run, params, fence):
    if params["clear"]:
        clear(run, Layout(params["variables"]["id"]))
    if params["clear"] or run.check_mode:
        return {}
    served = Layout(params["variables"]["id"]).served
    backup = params["backup"]
    if not backup:
        raise Failure("Nothing says which backup to try: give trueup_backup, or trueup_clear=true to only clear up.")
    drill = Drill(run, served, params["variables"], backup["manifest"], backup["urls"])
    return {"drilled": drill.carry_out(fence.unit if fence else None)}


def main():
    run_beside({"backup": {"type": "dict"}, "clear": {"type": "bool", "default": False}}, drill)


if __name__ == "__main__":
    main()
