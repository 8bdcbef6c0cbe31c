# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A backup's database, loaded into an empty one: for a restore, and for a drill of one."""

from __future__ import annotations

from ansible_collections.trueup.wordpress.plugins.module_utils import dump, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

DATABASE = "database.sql.zst"
FILES = "files.tar.zst"
UNPACK = ("zstd", "-dcq")


def load(run, path, database, former):
    """Load ``path`` into ``database``; the StoredObjects that go with its tables.

    ``former``: the name of the database that was backed up.
    """
    hint = "The database was not loaded"
    try:
        dump.load(run, run.start([*UNPACK, path]), database, hint=hint)
    except Failure as error:
        if error.facts.get("trueup_code") != stored_objects.UNMOVABLE:
            raise
    else:
        return stored_objects.unpacked(database)
    # Backups that an earlier version made have views and triggers among the tables.
    sql.make_anew(database)
    dump.load_whole(run, run.start([*UNPACK, path]), database, hint=hint)
    return stored_objects.take(database).called(former)
