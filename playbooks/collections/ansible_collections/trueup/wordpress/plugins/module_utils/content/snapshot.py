# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The database as it was before an update, kept on the node until the update is seen to be healthy.

An update changes the tables that visitors are using: there is no draft that could be swapped out again. So they are
copied first, and going back is one RENAME TABLE. What visitors wrote between the copy and the way back is then in the
database ``…_failed``, which stays until the next update.
"""

from __future__ import annotations

import os
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import dump, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import tables
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literal, qualified

MARK = "trueup_snapshot"
FRESH_S = 900
DATABASES = "/var/lib/mysql"


def copy_database(run, source, target):
    """All tables of ``source`` as of one moment in a new database ``target``. What cannot be moved is a Failure."""
    tables(source)
    sql.make_anew(target)
    dump.load(run, dump.started(run, source), target, hint="The database was not copied")


class Snapshot:
    def __init__(self, run, layout):
        self.run = run
        self.served = layout.database
        self.database = f"{layout.database}_before"
        self.failed = f"{layout.database}_failed"

    def taken_for(self):
        """Id of the release that it was taken for, and seconds since then; None where there is none, or not all."""
        if not os.path.isdir(f"{DATABASES}/{self.database}"):
            return None
        if MARK not in sql.tables(self.database):
            return None
        rows = sql.within(self.database).rows(f"SELECT id, taken_at FROM {qualified(self.database, MARK)}")
        return (rows[0][0], time.time() - int(rows[0][1])) if len(rows) == 1 else None

    def take(self, release_id):
        """Unless it was taken for this release already: then the tables are no longer what they were."""
        taken = self.taken_for()
        if taken and taken[0] == release_id:
            return
        self.forget()
        sql.drop(self.failed)
        copy_database(self.run, self.served, self.database)
        mark = qualified(self.database, MARK)
        sql.within(self.database).say(
            f"CREATE TABLE {mark} (id CHAR(36) PRIMARY KEY, taken_at BIGINT) ENGINE=InnoDB",
            f"INSERT INTO {mark} VALUES ({literal(release_id)}, {int(time.time())})",
        )

    def back(self):
        """Put the tables back as they were. It may be interrupted and repeated."""
        coming = [name for name in tables(self.database) if name != MARK]
        if not coming:
            return
        leaving = tables(self.served)
        sql.make_anew(self.failed)
        sql.move(
            [(self.served, self.failed, name) for name in leaving]
            + [(self.database, self.served, name) for name in coming]
        )
        self.forget()

    def forget(self):
        """The update is healthy, or taken back."""
        sql.drop(self.database)
