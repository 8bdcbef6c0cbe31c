# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Addresses replaced in a database's tables: at rest, where nobody else writes, or while the site is at work.

At work, a row is changed only while it says what it said when it was read, and the way back is on disk before that.
"""

from __future__ import annotations

import os
import re
from itertools import islice

from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite import Rewriter
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.database import CLIENT, literal
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

TEXT_TYPES = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "json")
TEXT_TYPES += ("tinyblob", "blob", "mediumblob", "longblob", "binary", "varbinary")
NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
KEPT_COLUMNS = frozenset({"guid"})
_BATCH = 200
ROUNDS = 5
"""How often what changed meanwhile is looked for; a cell that somebody changes all the time is left as it is."""
_AGAIN = re.compile(r"ERROR (?:1205|1213) ")


def rewrite_database(run, database, names, replacements):
    """Rewrite every text column of these tables; how many cells changed, by table."""
    rewriter = Rewriter(replacements)
    return _rewrite_tables(run, database, names, rewriter, AtRest(run)) if rewriter.rules else {}


def rewrite_in_use(run, database, replacements, undo):
    """The same while the site is at work: a cell that somebody has changed since it was read is read again.

    Options come last, because WordPress's own address is among them. ``undo``: a file for the way back, see
    ``take_back``. How many cells were to change, by table.
    """
    rewriter, total = Rewriter(replacements), {}
    names = _tables(run, database)
    with InUse(run, undo) as cells:
        for _ in range(ROUNDS if rewriter.rules else 0):
            counts = _rewrite_tables(run, database, names, rewriter, cells)
            total = {name: total.get(name, 0) + counts.get(name, 0) for name in total.keys() | counts.keys()}
            if not counts:
                break
    return total


def take_back(run, undo):
    """Every cell that was rewritten, and that nobody has written since, is again what it was, byte for byte."""
    if not os.path.exists(undo):
        return
    with open(undo, encoding="ascii") as file, InUse(run) as cells:
        # What a killed run wrote last may break off.
        whole = (line for line in file if line.endswith(";\n"))
        while part := list(islice(whole, _BATCH)):
            cells.write(part)
    os.unlink(undo)


def _tables(run, database):
    rows = run.command(
        CLIENT,
        text="SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE' "
        f"AND table_schema = {literal(database)} AND table_name NOT LIKE 'trueup\\_%';",
        hint="MariaDB refused",
    )
    return sorted(rows.splitlines(), key=lambda name: (name.endswith("options"), name))


def _rewrite_tables(run, database, names, rewriter, cells):
    counts = {}
    for name in names:
        columns, key = _columns(run, database, name)
        if columns and (count := _rewrite_table(run, database, name, columns, key, rewriter, cells)):
            counts[name] = count
    return counts


def _columns(run, database, table):
    """Names of the text columns; and of the primary key's columns, each with whether it is a number."""
    rows = run.command(
        CLIENT,
        text="SELECT column_name, data_type, column_key, extra FROM information_schema.columns "
        f"WHERE table_schema = {literal(database)} AND table_name = {literal(table)} ORDER BY ordinal_position;",
        hint="MariaDB refused",
    )
    found = [row.split("\t") for row in rows.splitlines()]
    key = [(name, kind in NUMBERS) for name, kind, role, _ in found if role == "PRI"]
    keys = {name for name, _ in key}
    texts = [
        name
        for name, kind, _, extra in found
        if kind in TEXT_TYPES and name not in keys and name not in KEPT_COLUMNS and "GENERATED" not in extra.upper()
    ]
    return texts, key


def _rewrite_table(run, database, table, columns, key, rewriter, cells):
    hosts = [f"0x{host.hex()}" for host in rewriter.hosts]
    tests = [f"LOCATE({host}, CAST(`{column}` AS BINARY))" for column in columns for host in hosts]
    chosen = [f"`{name}`" if number else f"HEX(`{name}`)" for name, number in key]
    chosen += [f"HEX(`{column}`)" for column in columns]
    query = f"SELECT {', '.join(chosen)} FROM `{database}`.`{table}` WHERE {' OR '.join(tests)};"
    changed, waiting = 0, []
    reader = run.start([*CLIENT, "--quick", "--default-character-set=binary", "--execute", query])
    try:
        for line in reader.stdout:
            found = _changes(columns, key, line.rstrip(b"\n").split(b"\t"), rewriter)
            changed += len(found.sets)
            waiting += [(f"`{database}`.`{table}`", found)] if found.sets else []
            if len(waiting) >= _BATCH:
                cells.change(waiting)
                waiting = []
    finally:
        reader.stdout.close()
        errors = reader.stderr.read()
        reader.stdin.close()
        reader.stderr.close()
        status = reader.wait()
    if status != 0:
        raise Failure(f"Table {table} could not be read: {errors.decode('utf-8', 'replace').strip()[-500:]}")
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
    for column, cell in zip(columns, values):  # noqa: B905 - not in Python 3.9
        if cell == b"NULL":
            continue
        old = bytes.fromhex(cell.decode())
        new = rewriter(old)
        if new != old:
            sets.append((column, old, new))
    where = [
        f"`{name}` = {cell.decode()}" if number else f"CAST(`{name}` AS BINARY) = 0x{cell.decode()}"
        for (name, number), cell in zip(key, places)  # noqa: B905
    ]
    return Row(where, sets)


def _says(column, value):
    return f"CAST(`{column}` AS BINARY) = {_literal(value)}"


def _literal(value):
    return f"0x{value.hex()}" if value else "''"


def _statement(table, sets, where):
    values = ", ".join(f"`{column}` = {_literal(value)}" for column, value in sets)
    return f"UPDATE {table} SET {values} WHERE {' AND '.join(where)};"


class AtRest:
    """Changes rows that nobody else writes to."""

    def __init__(self, run):
        self.run = run

    def change(self, rows):
        self.write([row.update(table) for table, row in rows])

    def write(self, statements, together=_BATCH):
        """``together``: how many go into one transaction."""
        parts = [statements[start : start + together] for start in range(0, len(statements), together)]
        if parts:
            # Or "on update" columns would say that every row was changed now, by somebody.
            text = "SET SESSION sql_mode = ''; SET NAMES binary;"
            text += "".join(f"BEGIN;{''.join(part)}COMMIT;" for part in parts)
            argv = [*CLIENT, "--default-character-set=binary"]
            self.run.command(argv, text=text, hint="Addresses were not replaced")


class InUse(AtRest):
    """Changes rows of a site at work, in small transactions: whoever is buying something waits a moment at most.

    The way back is on disk before a row is changed.
    """

    def __init__(self, run, undo=None):
        super().__init__(run)
        self.undo = undo
        self.file = None

    def __enter__(self):
        if self.undo:
            handle = os.open(self.undo, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            self.file = os.fdopen(handle, "a", encoding="ascii")
        return self

    def __exit__(self, *_):
        if self.file:
            self.file.close()

    def change(self, rows):
        if self.file:
            self.file.writelines(f"{row.back(table)}\n" for table, row in rows)
            self.file.flush()
        self.write([row.update_in_use(table) for table, row in rows])

    def write(self, statements, together=20):
        for attempt in range(ROUNDS):
            try:
                super().write(statements, together)
                break
            except Failure as error:
                # Where both wait for each other, we begin again: what is written already says no more what it said.
                if attempt + 1 == ROUNDS or not _AGAIN.search(str(error)):
                    raise
