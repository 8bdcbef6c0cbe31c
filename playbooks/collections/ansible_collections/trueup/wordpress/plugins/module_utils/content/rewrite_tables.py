# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Addresses replaced in a database's tables: at rest, where nobody else writes, or while the site is at work.

At work, a row is changed only while it says what it said when it was read, and the way back is on disk before that.
"""

from __future__ import annotations

import json
import os
from itertools import islice

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite import Rewriter
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal

TEXT_TYPES = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "json")
TEXT_TYPES += ("tinyblob", "blob", "mediumblob", "longblob", "binary", "varbinary")
NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
KEPT_COLUMNS = frozenset({"guid"})
_BATCH = 200
ROUNDS = 5
"""How often what changed meanwhile is looked for; a cell that somebody changes all the time is left as it is."""
_AGAIN = frozenset({1205, 1213})
"""MariaDB's numbers for a lock that was waited for too long, and for two that waited for each other."""


def rewrite_database(database, names, replacements):
    """Rewrite every text column of these tables; how many cells changed, by table."""
    rewriter = Rewriter(replacements)
    if not rewriter.rules:
        return {}
    with AtRest(database) as cells:
        return _rewrite_tables(database, names, rewriter, cells)


def rewrite_in_use(database, replacements, undo):
    """The same while the site is at work: a cell that somebody has changed since it was read is read again.

    Options come last, because WordPress's own address is among them. ``undo``: a file for the way back, see
    ``take_back``. How many cells were to change, by table.
    """
    rewriter, total = Rewriter(replacements), {}
    names = _tables(database)
    with InUse(database, undo) as cells:
        for _ in range(ROUNDS if rewriter.rules else 0):
            counts = _rewrite_tables(database, names, rewriter, cells)
            total = {name: total.get(name, 0) + counts.get(name, 0) for name in total.keys() | counts.keys()}
            if not counts:
                break
    return total


def take_back(database, undo):
    """Every cell that was rewritten, and that nobody has written since, is again what it was, byte for byte."""
    if not os.path.exists(undo):
        return
    with open(undo, encoding="ascii") as file, InUse(database) as cells:
        # What a killed run wrote last may break off.
        whole = (statement for line in file if (statement := _statement_of(line)))
        while part := list(islice(whole, _BATCH)):
            cells.write(part)
    os.unlink(undo)


def _statement_of(line):
    """The statement of a whole line, None of one that breaks off. Lines were statements before they were JSON."""
    if line.endswith('"\n'):
        return json.loads(line)
    return line.rstrip(";\n") if line.startswith("UPDATE ") and line.endswith(";\n") else None


def _tables(database):
    names = sql.tables(database, "AND table_name NOT LIKE 'trueup\\_%'")
    return sorted(names, key=lambda name: (name.endswith("options"), name))


def _rewrite_tables(database, names, rewriter, cells):
    counts = {}
    for name in names:
        columns, key = _columns(database, name)
        if columns and (count := _rewrite_table(database, name, columns, key, rewriter, cells)):
            counts[name] = count
    return counts


def _columns(database, table):
    """Names of the text columns; and of the primary key's columns, each with whether it is a number."""
    found = sql.within(database).rows(
        "SELECT column_name, data_type, column_key, extra FROM information_schema.columns "
        f"WHERE table_schema = {literal(database)} AND table_name = {literal(table)} ORDER BY ordinal_position"
    )
    key = [(name, kind in NUMBERS) for name, kind, role, _ in found if role == "PRI"]
    keys = {name for name, _ in key}
    texts = [
        name
        for name, kind, _, extra in found
        if kind in TEXT_TYPES and name not in keys and name not in KEPT_COLUMNS and "GENERATED" not in extra.upper()
    ]
    return texts, key


def _rewrite_table(database, table, columns, key, rewriter, cells):
    tests = [
        f"LOCATE({literal(host)}, CAST({identifier(column)} AS BINARY))"
        for column in columns
        for host in rewriter.hosts
    ]
    chosen = ", ".join(identifier(name) for name in [*(name for name, _ in key), *columns])
    place = sql.qualified(database, table)
    query = f"SELECT {chosen} FROM {place} WHERE {' OR '.join(tests)}"
    changed, waiting = 0, []
    # Bytes as they are stored, whatever the column's character set.
    for row in sql.within(database).stream(query, "SET SESSION character_set_results = NULL"):
        found = _changes(columns, key, row, rewriter)
        changed += len(found.sets)
        waiting += [(place, found)] if found.sets else []
        if len(waiting) >= _BATCH:
            cells.change(waiting)
            waiting = []
    cells.change(waiting)
    return changed


class Row:
    """What changes in one row: conditions that name it, and for each column its value before and after."""

    def __init__(self, where, sets):
        self.where = where
        self.sets = sets

    def update(self, table):
        """Without a key, what the row says is what names it."""
        where = self.where or [_says(column, old) for column, old, _ in self.sets]
        return _statement(table, [(column, new) for column, _, new in self.sets], where)

    def update_in_use(self, table):
        """Only while it says what it said."""
        where = [*self.where, *(_says(column, old) for column, old, _ in self.sets)]
        return _statement(table, [(column, new) for column, _, new in self.sets], where)

    def back(self, table):
        where = [*self.where, *(_says(column, new) for column, _, new in self.sets)]
        return _statement(table, [(column, old) for column, old, _ in self.sets], where)


def _changes(columns, key, cells, rewriter):
    places, values = cells[: len(key)], cells[len(key) :]
    sets = []
    for column, old in zip(columns, values):  # noqa: B905 - not in Python 3.9
        if old is not None and (new := rewriter(old)) != old:
            sets.append((column, old, new))
    where = [
        f"{identifier(name)} = {int(cell)}" if number else _says(name, cell)
        for (name, number), cell in zip(key, places)  # noqa: B905
    ]
    return Row(where, sets)


def _says(column, value):
    return f"CAST({identifier(column)} AS BINARY) = {literal(value)}"


def _statement(table, sets, where):
    values = ", ".join(f"{identifier(column)} = {literal(value)}" for column, value in sets)
    return f"UPDATE {table} SET {values} WHERE {' AND '.join(where)}"


class AtRest:
    """Changes rows that nobody else writes to; a context, whose connection ends with it."""

    def __init__(self, database):
        self.session = sql.opened(database)
        # Or "on update" columns would say that every row was changed now, by somebody.
        self.session.say("SET SESSION sql_mode = ''")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.close()

    def change(self, rows):
        self.write([row.update(table) for table, row in rows])

    def write(self, statements, together=_BATCH):
        """``together``: how many go into one transaction."""
        for start in range(0, len(statements), together):
            self.session.together(statements[start : start + together])


class InUse(AtRest):
    """Changes rows of a site at work, in small transactions: whoever is buying something waits a moment at most.

    The way back is on disk before a row is changed.
    """

    def __init__(self, database, undo=None):
        super().__init__(database)
        self.undo = undo
        self.file = None

    def __enter__(self):
        if self.undo:
            handle = os.open(self.undo, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            self.file = os.fdopen(handle, "a", encoding="ascii")
        return self

    def __exit__(self, *_):
        super().__exit__()
        if self.file:
            self.file.close()

    def change(self, rows):
        if self.file:
            # As JSON: a column's name may have a line break in it.
            self.file.writelines(f"{json.dumps(row.back(table))}\n" for table, row in rows)
            self.file.flush()
        self.write([row.update_in_use(table) for table, row in rows])

    def write(self, statements, together=20):
        for attempt in range(ROUNDS):
            try:
                super().write(statements, together)
                break
            except sql.SqlError as error:
                # Where both wait for each other, we begin again: what is written already says no more what it said.
                if attempt + 1 == ROUNDS or error.code not in _AGAIN:
                    raise
