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

from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import DUMP, root, tables
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.database import CLIENT, literal

MARK = "trueup_snapshot"
FRESH_S = 900
DATABASES = "/var/lib/mysql"


def copy_database(run, source, target):
    """All tables of ``source`` as of one moment in a new database ``target``. What cannot be moved is a Failure."""
    tables(run, source)
    root(
        run,
        f"DROP DATABASE IF EXISTS `{target}`;"
        f"CREATE DATABASE `{target}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;",
    )
    run.pipe(run.start([*DUMP, source]), [*CLIENT, target], hint="The database was not copied")


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
        there = f"table_schema = {literal(self.database)} AND table_name = '{MARK}'"
        if root(self.run, f"SELECT COUNT(*) FROM information_schema.tables WHERE {there};").strip() != "1":
            return None
        row = root(self.run, f"SELECT id, taken_at FROM `{self.database}`.{MARK};").split()
        return (row[0], time.time() - int(row[1])) if len(row) == 2 else None

    def take(self, release_id):
        """Unless it was taken for this release already: then the tables are no longer what they were."""
        taken = self.taken_for()
        if taken and taken[0] == release_id:
            return
        self.forget()
        root(self.run, f"DROP DATABASE IF EXISTS `{self.failed}`;")
        copy_database(self.run, self.served, self.database)
        root(
            self.run,
            f"CREATE TABLE {MARK} (id CHAR(36) PRIMARY KEY, taken_at BIGINT) ENGINE=InnoDB;"
            f"INSERT INTO {MARK} VALUES ({literal(release_id)}, {int(time.time())});",
            database=self.database,
        )

    def back(self):
        """Put the tables back as they were. It may be interrupted and repeated."""
        coming = [name for name in tables(self.run, self.database) if name != MARK]
        if not coming:
            return
        leaving = tables(self.run, self.served)
        root(
            self.run,
            f"DROP DATABASE IF EXISTS `{self.failed}`;"
            f"CREATE DATABASE `{self.failed}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;",
        )
        moves = [(self.served, self.failed, name) for name in leaving]
        moves += [(self.database, self.served, name) for name in coming]
        steps = ", ".join(f"`{one}`.`{name}` TO `{other}`.`{name}`" for one, other, name in moves)
        root(self.run, f"RENAME TABLE {steps};")
        self.forget()

    def forget(self):
        """The update is healthy, or taken back."""
        root(self.run, f"DROP DATABASE IF EXISTS `{self.database}`;")
