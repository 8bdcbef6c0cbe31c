# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The database as it was before an update, kept on the node until the update is seen to be healthy.

An update changes the tables that visitors are using, and visitors go on writing: they are copied first, and going back
takes out what the update's code changed, which its rehearsal has shown. See ``migration``.
"""

from __future__ import annotations

import contextlib
import os
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import dump, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.content.migration import Migration
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.wordpress import Configuration
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literal, qualified

MARK = "trueup_snapshot"
DATABASES = "/var/lib/mysql"


def copy_database(run, source, target):
    """All tables of ``source`` as of one moment in a new database ``target``; the StoredObjects that go with them."""
    objects = stored_objects.read(source)
    sql.make_anew(target)
    # Nothing of it is called so: what says which content is served comes along.
    reader = dump.started(run, source, ours=stored_objects.KEPT_TABLE)
    dump.load(run, reader, target, hint="The database was not copied", source=source)
    return objects


class Snapshot:
    def __init__(self, run, layout):
        self.run = run
        self.layout = layout
        self.served = layout.database
        self.database = f"{layout.database}_before"
        self.migration = Migration(layout, self.database)

    def taken_for(self):
        """Id of the release that it was taken for; None where there is none, or not all."""
        if not os.path.isdir(f"{DATABASES}/{self.database}"):
            return None
        if MARK not in sql.tables(self.database):
            return None
        rows = sql.within(self.database).rows(f"SELECT id FROM {qualified(self.database, MARK)}")
        return rows[0][0] if len(rows) == 1 else None

    def take(self, release_id):
        """Unless it was taken for this release already: then the tables are no longer what they were."""
        if self.taken_for() == release_id:
            return
        sql.drop(self.database)
        objects = copy_database(self.run, self.served, self.database)
        mark = qualified(self.database, MARK)
        sql.within(self.database).say(
            *stored_objects.keeping(objects, self.database),
            f"CREATE TABLE {mark} (id CHAR(36) PRIMARY KEY, taken_at BIGINT) ENGINE=InnoDB",
            f"INSERT INTO {mark} VALUES ({literal(release_id)}, {int(time.time())})",
        )

    def take_out(self, release_id):
        """Take out of the tables what the release's code changed, while nobody writes into them.

        What a person should know of it, as sentences. It may be interrupted and repeated.
        """
        if not self.migration.is_of(release_id):
            told = self.migration.take_out(release_id)
        else:
            told = self._with_objects(lambda: self.migration.take_out(release_id))
        self.forget()
        return told

    def _with_objects(self, work):
        """What lies beside the tables would be in the way; afterwards it is what it was before the update."""
        objects, told = stored_objects.kept(self.database), []
        with self._owner(objects) as owner:
            stored_objects.drop(self.served)
            told += work()
            try:
                objects.make(owner, self.served)
            except Failure as error:
                told.append(str(error))
        return told

    def _owner(self, objects):
        if not objects:
            return contextlib.nullcontext()
        return sql.own(self.served, Configuration(self.layout, "").password)

    def forget(self):
        """The update is healthy, or taken out, or never was switched to."""
        if self.is_there():
            sql.drop(self.database)
            self.migration.forget()

    def is_there(self):
        return any(os.path.isdir(f"{DATABASES}/{name}") for name in (self.database, self.migration.later))
