#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Sends an environment's database and files to storage as they are read: nothing of it is written on this node."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Send an environment's database and files to storage
description:
  - The database is read at one moment, without locks. Caches and Trueup's own tables are left out.
  - Its views, triggers, routines and events are made once in a database that is thrown away. What a restore would not
    take is refused.
  - Streams through zstd into the parts of multipart uploads; memory is bounded by one part, and no disk is used.
options:
  variables:
    description: The variable of role C(environment).
    type: dict
    required: true
  backup:
    description:
      - C(scope) (db, files, full), C(part_bytes), and C(uploads), by object the addresses of its parts.
    type: dict
    required: true
author: Trueup
"""

EXAMPLES = r"""
- name: Send the backup
  trueup.wordpress.backup:
    variables: "{{ trueup_environment }}"
    backup: {scope: db, part_bytes: 16777216, uploads: {database.sql.zst: ["https://…"]}}
"""

RETURN = r"""
objects: {description: "By object etags, sha256, size_bytes.", type: dict, returned: success}
wordpress_version: {description: Core below the files., type: str, returned: success}
tables: {description: "By table of the database, how many rows were sent.", type: dict, returned: success}
content_id: {description: "The content that is served, where none is being exchanged.", type: str, returned: success}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils import dump as dumps
from ansible_collections.trueup.wordpress.plugins.module_utils.content import replace, stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.content.row_counts import Counted
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import waiting
from ansible_collections.trueup.wordpress.plugins.module_utils.content.transfer import Sender
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core, sandbox
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.ledger import Ledger
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Beside, Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused

EXCLUDED = ("cache", "upgrade", "upgrade-temp-backup", "uploads")


COMPRESS = ["zstd", "-q", "-3"]
LONGEST_S = 12 * 3600
"""The addresses of the parts are good for no longer."""


class Sending(Beside):
    """A run whose commands read the database as a user of its own, who may read this one alone."""

    credentials = {}  # noqa: RUF012

    def start(self, argv, **options):
        return super().start(argv, environment=self.credentials, **options)


def dump(run, layout):
    """The tables of the database, but for our own."""
    arguments, run.credentials = dumps.reader(layout.database)
    return [[*dumps.DUMP, *arguments, *dumps.left_out(layout.database), layout.database], COMPRESS]


class Tail:
    """What comes behind the tables: the texts of views, triggers, routines and events, as a table of ours."""

    def __init__(self, run, layout):
        self.run = run
        self.layout = layout
        self.objects = stored_objects.read(layout.database)
        stored_objects.check(self.objects, f"{layout.database}_trial")

    def __call__(self):
        """The end of the compressed stream."""
        made = stored_objects.read(self.layout.database).without(self.objects)
        if any(one.kind == stored_objects.VIEW for one in made.objects):
            # It may be among the tables, where nobody could load it.
            raise Failure("A view was made while the database was read. Back it up again.")
        if not self.objects:
            return b""
        text = ";\n".join([*stored_objects.keeping(self.objects), ""])
        return self.run.start(COMPRESS).communicate(text.encode("ascii"))[0]


def sent(run, layout, name, urls, part_bytes):
    """What became of one object, and the rows by table where it is the database."""
    sender = Sender(run, urls, part_bytes)
    if not name.startswith("database"):
        run.credentials = {}
        return sender.send(files(run, layout)), None
    tail, counted = Tail(run, layout), []

    def watch(stream):
        counted.append(Counted(stream))
        return counted[0].passed

    done = sender.send(dump(run, layout), tail, lambda said: dumps.explain(layout.database, said), watch)
    counted[0].join()
    return done, counted[0].counts.tables


def files(run, layout):
    """``wp-content/`` of what is served, and ``uploads/``, read in the site's sandbox."""
    release = os.path.realpath(layout.current)
    # Else each is tried at every part of a path, which in a tree of a hacked site goes on for as long as it likes.
    excluded = ["--anchored", "--no-wildcards", *(f"--exclude=./wp-content/{name}" for name in EXCLUDED)]
    # A hole takes no time. As the site's user, in its sandbox: no neighbour's file is read under whatever name, and
    # the site's own processes, whose user it is, find nothing in it that they have not.
    argv = ["tar", "--create", "--sparse", "--ignore-failed-read", "--warning=no-file-changed", *excluded]
    argv += ["--directory", release, "./wp-content", "--directory", layout.shared, "./uploads"]
    return [sandbox.command(layout, argv, seconds=LONGEST_S, scope=run.scope), COMPRESS]


def version(layout):
    """Core below the files."""
    return core.version_of(os.path.realpath(layout.current))


def main():
    options = {"variables": {"type": "dict", "required": True}, "backup": {"type": "dict", "required": True}}
    module = AnsibleModule(options, supports_check_mode=True)
    variables, backup = module.params["variables"], module.params["backup"]
    objects, tables, content_id = {}, None, None
    try:
        layout = Layout(variables["id"])
        run = Sending(module.check_mode, layout.pending, variables.get("job"))
        if module.check_mode:
            module.exit_json(changed=True, objects={}, wordpress_version=version(layout))
        with Fence(layout.id, variables.get("job")) as fence:
            run.inherited, run.scope = (fence.handle,), fence.unit
            content_id = Ledger(layout.manifest).served_content(waiting(layout))
            if replace.unfinished(layout.replaced) not in (None, content_id):
                content_id = None
            for name, urls in backup["uploads"].items():
                objects[name], counts = sent(run, layout, name, urls, backup["part_bytes"])
                tables = tables if counts is None else counts
    except (Failure, Refused) as error:
        facts = {"trueup_code": "BACKUP_FAILED", **error.facts}
        module.fail_json(msg=str(error), **facts)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}", trueup_code="BACKUP_FAILED")
    found = {"wordpress_version": version(layout), "content_id": content_id, "tables": tables}
    module.exit_json(changed=True, objects=objects, **found)


if __name__ == "__main__":
    main()
