# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Content (database and uploads) that is prepared beside what is served, and swapped in whole.

A content is *staged* in a draft database and a directory of its own, and *sealed* when nothing is missing. Swapping is
one RENAME TABLE and one exchange of directories; what was served before waits beside it until the site is healthy, so
that going back is the same two steps. Table ``trueup_content`` moves with the rest: what it says is what is served.
"""

from __future__ import annotations

import json
import os

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite_tables import rewrite_database
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.merge import Merge
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literal, qualified
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

MARK_TABLE = "trueup_content"
OURS = "trueup_"
"""Tables whose names begin so are Trueup's own: in no backup, no comparison, no copy."""


def tables(database):
    """Names of the base tables. Views and triggers, which cannot be moved between databases, are a Failure."""
    found = sql.root().rows(
        "SELECT table_type, table_name FROM information_schema.tables "
        f"WHERE table_schema = {literal(database)} UNION ALL "
        "SELECT 'TRIGGER', trigger_name FROM information_schema.triggers "
        f"WHERE trigger_schema = {literal(database)} ORDER BY 2"
    )
    fixed = [f"{kind.lower()} {name[:80]}" for kind, name in found if kind != "BASE TABLE"]
    if fixed:
        raise Failure(
            f"Database {database} has what cannot be moved with its tables: {', '.join(fixed[:5])}. "
            "Remove it and try again.",
            trueup_code="CONTENT_UNMOVABLE",
        )
    return [name for _, name in found]


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
        """What was sealed: ``tables`` (None: the whole database), ``uploads`` (inode, or None); None: nothing was."""
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

    def rewrite(self, replacements):
        """Replace addresses in every table: ``[(old, new), …]``; how many cells changed, by table."""
        return rewrite_database(self.database, tables(self.database), replacements)

    def seal(self, user, *, database=True, only=None, uploads=True, merge=None):
        """All is there. ``only``: the tables that are replaced, where the others stay; left out: all of them.

        ``merge``: rows go into the tables that are there, instead of tables into the database; see ``promotion.merge``.
        """
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
            "tables": only,
            "uploads": os.stat(self.uploads).st_ino if uploads else None,
            "merge": merge,
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

    def is_begun(self):
        """Whether the content is in, or ready to go in; what brings it has nothing left to do."""
        return self.staging.is_ready()

    def forward(self):
        sealed = self.staging.sealed()
        if sealed is None:
            return
        if sealed["database"] and content_in(self.layout.database) != self.content_id:
            self._rename_in(sealed["tables"])
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
        if sealed["database"] and content_in(self.layout.database) == self.content_id:
            self._rename_out(sealed["tables"])
        if sealed.get("merge") and content_in(self.layout.database) == self.content_id:
            self._merge(sealed).back()

    def forget(self):
        """What was served before is not needed any more."""
        sql.drop(self.former, self.staging.database)
        paths.remove(self.staging.incoming)

    def _merge(self, sealed):
        names = (self.staging.database, self.former, self.content_id)
        return Merge(self.layout, *names, sealed["merge"])

    def _rename_in(self, only):
        live, staged = self.layout.database, self.staging.database
        coming = tables(staged)
        there = tables(live)
        leaving = there if only is None else [name for name in there if name in {*only, *coming}]
        sql.make_anew(self.former)
        sql.move([(live, self.former, table) for table in leaving] + [(staged, live, table) for table in coming])

    def _rename_out(self, only):
        live, staged = self.layout.database, self.staging.database
        former, there = tables(self.former), tables(live)
        leaving = there if only is None else [name for name in there if name in {*only, *former, MARK_TABLE}]
        sql.move([(live, staged, table) for table in leaving] + [(self.former, live, table) for table in former])
