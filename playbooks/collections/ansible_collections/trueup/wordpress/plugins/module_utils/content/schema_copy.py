# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Content (database and uploads) that is prepared beside what is served, and swapped in whole.

A content is *staged* in a draft database and a directory of its own, and *sealed* when nothing is missing. Swapping is
one RENAME TABLE and one exchange of directories; what was served before waits beside it until the site is healthy, so
that going back is the same two steps. Table ``trueup_content`` moves with the rest: what it says is what is served.

Views, triggers, routines and events cannot be renamed. They are dropped before the tables move, and made anew in the
database that is served by its permanent user, with the site's own rights.
"""

from __future__ import annotations

import contextlib
import json
import os

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite import Rewriter
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite_files import rewrite_files
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite_tables import rewrite_database
from ansible_collections.trueup.wordpress.plugins.module_utils.dump import OURS
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.wordpress import Configuration
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.merge import Merge
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literal, qualified
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

MARK_TABLE = f"{OURS}content"
FORMER = "objects.json"
"""What a swap has dropped of the database that is served, so that it can be made again."""
ROUNDS = 5
HAS_TRIGGER = 1435
"""MariaDB's number for a table that cannot go to another database because of a trigger."""


def content_in(database):
    """Id of the content in a database, as its own mark says; None where there is no mark."""
    there = sql.root().value(
        "SELECT table_type FROM information_schema.tables "
        f"WHERE table_schema = {literal(database)} AND table_name = {literal(MARK_TABLE)}"
    )
    if there != "BASE TABLE":
        return None
    try:
        return sql.within(database).value(f"SELECT LEFT(id, 36) FROM {qualified(database, MARK_TABLE)} LIMIT 1")
    except sql.SqlError:
        return None  # another table of that name, which is not ours


def site_addresses(database):
    """What a site's own options say its address is: ``siteurl`` and ``home``, no more than a few."""
    session = sql.within(database)
    sql.needed_table(session, database, "wp_options")
    rows = session.rows(
        f"SELECT LEFT(option_value, 2000) FROM {qualified(database, 'wp_options')} "
        "WHERE option_name IN ('siteurl', 'home') LIMIT 10"
    )
    return [value.strip() for (value,) in rows if value]


def waiting(layout):
    """Ids of contents that are being got ready, or were swapped in without being applied to the end."""
    return sorted(os.listdir(f"{layout.site}/incoming")) if os.path.isdir(f"{layout.site}/incoming") else []


class Staging:
    """One content being prepared for the environment of ``layout``."""

    def __init__(self, run, layout, content_id):
        self.run = run
        self.layout = layout
        self.content_id = content_id
        self.database = f"{layout.database}_next"
        self.incoming = f"{layout.site}/incoming"
        self.directory = f"{self.incoming}/{content_id}"
        self.uploads = f"{self.directory}/uploads"
        self.seal_file = f"{self.directory}/sealed.json"

    def sealed(self):
        """What was sealed, as ``seal`` wrote it; None: nothing was."""
        try:
            with open(self.seal_file, encoding="utf-8") as file:
                return json.load(file)
        except (FileNotFoundError, ValueError):
            return None

    def is_sealed(self):
        sealed = self.sealed()
        if sealed is None:
            return False
        return not sealed["database"] or content_in(self.database) == self.content_id

    def is_ready(self):
        """Whether nothing is left to prepare: all is staged, or served already."""
        return self.is_sealed() or content_in(self.layout.database) == self.content_id

    def open(self):
        """Begin anew: whatever was being staged, for this content or another one, goes."""
        paths.remove(self.incoming)
        paths.directory(self.incoming, 0o700)
        paths.directory(self.uploads)
        sql.make_anew(self.database)

    def rewrite(self, replacements, directories=(), *, layered=True):
        """Replace addresses and directories, each ``[(old, new), …]``, in tables and in generated files of uploads.

        How many cells changed, by table, and how many files, as ``uploads``. What stays is told in the run's notes.
        ``layered``: see ``Rewriter``.
        """
        rewriter = Rewriter(replacements, directories, layered=layered)
        changes = rewrite_database(self.database, sql.tables(self.database), rewriter)
        files = rewrite_files(self.uploads, rewriter, changes)
        self.run.notes += changes.notes()
        return {**changes.counts, "uploads": files} if files else changes.counts

    def seal(self, user, *, database=True, uploads=True, merge=None, objects=None, acting=True):
        """All is there. ``objects``: the StoredObjects that come with the tables; what cannot be made is a Failure.

        ``acting``: their events are what they were; else none of them will be on. ``merge``: rows go into the tables
        that are there, instead of tables into the database; see ``promotion.merge``.
        """
        if objects:
            objects.make(stored_objects.maker(self.database), self.database)
            stored_objects.drop(self.database)
        if uploads:
            self.run.notes += filter(None, [paths.own(self.uploads, user.pw_uid, user.pw_gid)])
        if database:
            mark = qualified(self.database, MARK_TABLE)
            sql.within(self.database).say(
                f"CREATE TABLE {mark} (id CHAR(36) PRIMARY KEY) ENGINE=InnoDB",
                f"INSERT INTO {mark} VALUES ({literal(self.content_id)})",
            )
        sealed = {
            "content": self.content_id,
            "database": bool(database),
            "uploads": os.stat(self.uploads).st_ino if uploads else None,
            "merge": merge,
            "objects": objects.dumped() if objects else None,
            "acting": acting,
        }
        write_durably(self.seal_file, json.dumps(sealed).encode(), 0o600)

    def discard(self):
        paths.remove(self.incoming)
        sql.drop(self.database)


class Swap:
    """Puts a sealed content in, or takes it out again. Each half may be interrupted and repeated."""

    def __init__(self, run, layout, content_id):
        self.run = run
        self.layout = layout
        self.content_id = content_id
        self.staging = Staging(run, layout, content_id)
        self.former = f"{layout.database}_former"
        self.objects_file = f"{self.staging.directory}/{FORMER}"

    def is_begun(self):
        """Whether the content is in, or ready to go in; what brings it has nothing left to do."""
        return self.staging.is_ready()

    def forward(self):
        sealed = self.staging.sealed()
        if sealed is None:
            return
        if sealed["database"]:
            self._database_in(sealed)
        if sealed.get("merge") and content_in(self.layout.database) != self.content_id:
            seconds = self._merge(sealed).forward()
            self.run.notes.append(f"Rows that moved were locked for {seconds:.3f} s.")
        if sealed["uploads"] and os.stat(self.layout.uploads).st_ino != sealed["uploads"]:
            core.exchange(self.staging.uploads, self.layout.uploads)

    def back(self):
        sealed = self.staging.sealed()
        if sealed is None:
            return
        if sealed["uploads"] and os.stat(self.layout.uploads).st_ino == sealed["uploads"]:
            core.exchange(self.staging.uploads, self.layout.uploads)
        if sealed["database"]:
            self._database_out()
        if sealed.get("merge"):
            merge = self._merge(sealed)
            if content_in(self.layout.database) == self.content_id:
                merge.back()
            self.run.notes += merge.unmake()

    def forget(self):
        """What was served before is not needed any more."""
        sql.drop(self.former, self.staging.database)
        paths.remove(self.staging.incoming)

    def _merge(self, sealed):
        names = (self.staging.database, self.former, self.content_id)
        return Merge(self.layout, *names, sealed["merge"])

    def _database_in(self, sealed):
        live, objects = self.layout.database, stored_objects.StoredObjects(self.layout.database)
        if sealed.get("objects"):
            objects = stored_objects.StoredObjects.loaded(sealed["objects"])
        # Whoever makes them is let in before anything is gone.
        with self._owner(objects) as owner:
            if content_in(live) != self.content_id:
                self._rename_in()
            if objects:
                stored_objects.drop(live)
                objects.make(owner, live, acting=sealed["acting"])

    def _database_out(self):
        live, former = self.layout.database, self._former_objects()
        with self._owner(former) as owner:
            if content_in(live) == self.content_id:
                stored_objects.drop(live)
                self._rename_out()
            if former:
                # What is there was never dropped, or was made by a run that was killed.
                former.without(stored_objects.read(live)).make(owner, live)
        paths.remove(self.objects_file)

    def _owner(self, objects):
        """A session of the database's permanent user, where it has something to make."""
        if not objects:
            return contextlib.nullcontext()
        return sql.own(self.layout.database, Configuration(self.layout, "").password)

    def _rename_in(self):
        live, staged = self.layout.database, self.staging.database
        for attempt in range(ROUNDS):
            self._drop_former()
            sql.make_anew(self.former)
            leaving, coming = sql.tables(live), sql.tables(staged)
            moves = [(live, self.former, table) for table in leaving] + [(staged, live, table) for table in coming]
            try:
                sql.move(moves)
                break
            except sql.SqlError as error:
                # The site is at work, and may make a trigger at any time.
                if error.code != HAS_TRIGGER or attempt + 1 == ROUNDS:
                    raise

    def _drop_former(self):
        """Drop what cannot be renamed, once it is written down. What an earlier run dropped stays written."""
        live, former = self.layout.database, self._former_objects()
        found = stored_objects.read(live)
        if found:
            both = stored_objects.StoredObjects(live, [*found.objects, *former.without(found).objects])
            write_durably(self.objects_file, both.dumped().encode("ascii"), 0o600)
            stored_objects.drop(live)

    def _former_objects(self):
        try:
            with open(self.objects_file, encoding="ascii") as file:
                return stored_objects.StoredObjects.loaded(file.read())
        except FileNotFoundError:
            return stored_objects.StoredObjects(self.layout.database)

    def _rename_out(self):
        live, staged = self.layout.database, self.staging.database
        leaving, coming = sql.tables(live), sql.tables(self.former)
        sql.move([(live, staged, table) for table in leaving] + [(self.former, live, table) for table in coming])
