# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Addresses replaced in a database's tables: at rest, where nobody else writes, or while the site is at work.

At work, a row is changed only while it says what it said when it was read, and the way back is on disk before that.
Nothing but the cells changes: a column that MariaDB would set to the time of the change keeps its value.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite import excerpt
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal

TEXT_TYPES = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "json")
TEXT_TYPES += ("tinyblob", "blob", "mediumblob", "longblob", "binary", "varbinary")
NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
KEPT_COLUMNS = frozenset({"guid"})
BATCH = 200
BATCH_BYTES = 8 << 20
"""Of values that wait to be written; one alone may be larger."""
_LONG = 4096
"""Bytes of a value of which a statement says the digest, where it only has to know it again."""
ROUNDS = 5
"""How often what changed meanwhile is looked for; a cell that somebody changes all the time is left as it is."""
AGAIN = frozenset({1205, 1213})
"""MariaDB's numbers for a lock that was waited for too long, and for two that waited for each other."""
PASSING = AGAIN | {1021, 1037, 1038, 1041, 1114, 1290, 1317, 1836}
"""Its numbers for what is no row's fault and passes: no room on the disk, no memory, a statement that was stopped."""
LOCK_S = 5
"""How long a row's lock is waited for; a site at work holds one for moments."""
STATEMENT_S = 10
"""How long a row's change may take, and one second more for each MB: a site's triggers may sleep."""
PATIENCE_S = 60
"""What a way back has, all in all, for rows that make it wait. Without any left, a table that makes it wait is left as
it is, and twice as late, all."""
QUICK_S, QUICK_BYTES = 0.5, 4 << 20
"""What changes nobody waits for take less than so long, and a second more for so many bytes of statements."""
SPARE = 64 << 20
"""Bytes: a disk of databases with less of them has no room."""
TAKEN = 1062
"""Its number for a key that is there already; the row that has it may be one that is taken back, too."""
TOO_SLOW = 1969
"""Its number for a statement that took longer than it may."""
TOO_LARGE = 1153
"""Its number for a statement that is longer than it takes."""
REFUSED = frozenset({1062, 1406, 1452, 3819, 4025})
"""Its numbers for a row that may not become so: a key that is there already, a check, a value that is too long."""

HOLDS_KEY = "it is what the row is known by"
TOO_LONG = "the new one is too long for its column"
NOT_TAKEN = "the table does not take the new one"


class Changes:
    """What a rewriting did: ``counts``, cells by table; ``left``, what stays as it is, by table, column and reason."""

    MOST = 50
    """Kinds of what is left that are told one by one."""

    def __init__(self):
        self.counts = {}
        self._left = {}
        self.more = 0

    @property
    def left(self):
        """``[{table, column, reason, count, example}]``, the most frequent first."""
        kinds = sorted(self._left.items(), key=lambda kind: (-kind[1][0], kind[0]))
        names = ("table", "column", "reason")
        return [{**dict(zip(names, kind)), "count": n, "example": example} for kind, (n, example) in kinds]  # noqa: B905

    def notes(self):
        """The same as sentences for a person; none where nothing is left."""
        told = [
            f"{one['table']}.{one['column']} names the former address in {_counted(one['count'])}, left so because "
            f"{one['reason']}, as in: {one['example']}"
            for one in self.left
        ]
        return told + ([f"{_counted(self.more)} more left as they are."] if self.more else [])

    def leave(self, table, column, reason, example, count=1):
        kind = (shown(table), shown(column), reason)
        if kind in self._left:
            self._left[kind][0] += count
        elif len(self._left) < self.MOST:
            self._left[kind] = [count, example]
        else:
            self.more += count

    def leave_nothing(self):
        """What was left is looked for once more."""
        self._left, self.more = {}, 0


def _counted(count, what="value"):
    return f"{count:,} {what}{'s' if count > 1 else ''}"


def shown(name):
    """A name that a site chose, as no terminal obeys it."""
    return "".join(one if one.isprintable() else "?" for one in name[:64])


def rewrite_database(database, names, rewriter):
    """Rewrite every text column of these tables, which nobody else writes to: the Changes."""
    changes = Changes()
    if rewriter.rules:
        with AtRest(database) as cells:
            _rewrite_tables(database, names, rewriter, cells, changes)
    return changes


def rewrite_in_use(database, rewriter, undo):
    """The same while the site is at work: a cell that somebody has changed since it was read is read again.

    Options come last, because WordPress's own address is among them. ``undo``: a file for the way back, see
    ``take_back``. The Changes; a cell that was written again in between counts twice.
    """
    changes = Changes()
    names = _tables(database)
    with InUse(database, undo) as cells:
        for _ in range(ROUNDS if rewriter.rules else 0):
            changes.leave_nothing()
            if not _rewrite_tables(database, names, rewriter, cells, changes):
                break
    return changes


def take_back(database, undo):
    """Every cell that was rewritten, and that nobody has written since, is again what it was, byte for byte.

    A row that the database does not take back stays as it is, and the others don't: sentences about such rows, for a
    person. A Failure where it is the server that cannot do it now; then it is to be begun again.
    """
    kept = Kept()
    if not os.path.exists(undo):
        return []
    with open(undo, encoding="ascii", errors="replace") as file, InUse(database) as cells:
        part, size = [], 0
        for line in file:
            # What a killed run wrote last may break off.
            if statement := _statement_of(line):
                part.append(statement)
                size += len(statement)
            if len(part) >= BATCH or size >= BATCH_BYTES:
                kept.note(cells.back(part))
                part, size = [], 0
        kept.note(cells.back(part))
        kept.again(cells)
    os.unlink(undo)
    return kept.notes()


_STATEMENT = re.compile(r"UPDATE `[^`]*`\.`((?:[^`]|``)+)` SET `(?:[^`]|``)+` = X'((?:[0-9a-f]{2}){0,200})")


class Patience:
    """What is left of ``PATIENCE_S``."""

    def __init__(self):
        self._left = PATIENCE_S
        self._given_up = set()

    @property
    def is_used_up(self):
        return self._left <= 0

    def is_over_for(self, statement):
        """Whether a statement's table made others wait for too long."""
        return self._left < -PATIENCE_S or _table_of(statement) in self._given_up

    def spent(self, seconds, statements):
        """Statements took so long."""
        late = seconds - QUICK_S - sum(map(len, statements)) / QUICK_BYTES
        # Statements that were sent together may all have waited, which leaves time for other tables all the same.
        self._left -= min(max(0, late), PATIENCE_S)
        tables = {_table_of(statement) for statement in statements}
        # Of more than one nobody knows which it was: each is asked alone from now on.
        if self.is_used_up and late > 0 and len(tables) == 1:
            self._given_up |= tables


def _table_of(statement):
    found = _STATEMENT.match(statement)
    return found[1] if found else ""


class Kept:
    """Rows that could not be taken back, by table and by what MariaDB says."""

    MOST = 20
    """Kinds that are told one by one."""
    _LONGEST = 200

    def __init__(self):
        self._kinds = {}
        self._more = 0
        self._waiting = []
        self._size = 0

    def note(self, refused):
        """``[(statement, SqlError)]``"""
        for statement, error in refused:
            if error.code == TAKEN and self._size + len(statement) <= BATCH_BYTES:
                self._waiting.append(statement)
                self._size += len(statement)
            else:
                self._tell(statement, error)

    def again(self, cells):
        """Take those back whose key a row had that was changed later, and is taken back by now: the last first."""
        waiting, self._waiting = self._waiting[::-1], []
        for refused in cells.back(waiting):
            self._tell(*refused)

    def _tell(self, statement, error):
        found = _STATEMENT.match(statement)
        table, value = (found[1].replace("``", "`"), bytes.fromhex(found[2])) if found else ("?", b"")
        kind = (shown(table), error.code)
        if kind in self._kinds:
            self._kinds[kind][0] += 1
        elif len(self._kinds) < self.MOST:
            said = "".join(one if one.isprintable() else "?" for one in str(error)[: self._LONGEST])
            self._kinds[kind] = [1, said, excerpt(value)]
        else:
            self._more += 1

    def notes(self):
        told = [
            f"{_counted(count, 'row')} of {table} could not be taken back, so the new text stays there. {said} "
            f"What stood there began with: {example}"
            for (table, _), (count, said, example) in self._kinds.items()
        ]
        return told + ([f"{_counted(self._more, 'more row')} could not be taken back."] if self._more else [])


def _statement_of(line):
    """The statement of a whole line, None of one that breaks off. Lines were statements before they were JSON."""
    if line.endswith('"\n'):
        with contextlib.suppress(ValueError):
            return json.loads(line)
        return None
    return line.rstrip(";\n") if line.startswith("UPDATE ") and line.endswith(";\n") else None


def _tables(database):
    names = sql.tables(database, "AND table_name NOT LIKE 'trueup\\_%'")
    return sorted(names, key=lambda name: (name.endswith("options"), name))


def _rewrite_tables(database, names, rewriter, cells, changes):
    """How many cells changed."""
    total = 0
    for name in names:
        table = Table(database, name)
        if table.columns:
            count = _rewrite_table(table, rewriter, cells, changes)
            total += count
            if count:
                changes.counts[name] = changes.counts.get(name, 0) + count
    return total


class Table:
    """A table as it is rewritten: ``key``, the columns of its primary key, each with whether it is a number;

    ``columns``, those with text that may change, and how long it may be; ``timed``, those that MariaDB sets by itself.
    """

    def __init__(self, database, name):
        self.database = database
        self.name = name
        self.place = sql.qualified(database, name)
        found = sql.within(database).rows(
            "SELECT column_name, data_type, column_key, extra, IFNULL(character_maximum_length, 0), "
            "IFNULL(character_octet_length, 0) FROM information_schema.columns "
            f"WHERE table_schema = {literal(database)} AND table_name = {literal(name)} ORDER BY ordinal_position"
        )
        self.key = [(column, kind in NUMBERS) for column, kind, role, *_ in found if role == "PRI"]
        self.columns = {
            column: (int(characters), int(size))
            for column, kind, role, extra, characters, size in found
            if kind in TEXT_TYPES and role != "PRI" and column not in KEPT_COLUMNS and "GENERATED" not in extra.upper()
        }
        self.key_texts = {
            column: (int(characters), int(size))
            for column, kind, role, _, characters, size in found
            if kind in TEXT_TYPES and role == "PRI" and column not in KEPT_COLUMNS
        }
        self.timed = [column for column, _, _, extra, *_ in found if "ON UPDATE" in extra.upper()]

    def query(self, needles):
        """Rows that have a needle in them: their key's columns, then those that may change."""
        tests = [
            f"LOCATE({literal(needle)}, CAST({identifier(column)} AS BINARY))"
            for column, (characters, size) in [*self.columns.items(), *self.key_texts.items()]
            for needle in needles
            # The two slashes in front of a name are no shorter than themselves.
            if len(needle) + 2 <= max(characters, size)
        ]
        chosen = ", ".join(identifier(name) for name in [*(name for name, _ in self.key), *self.columns])
        return f"SELECT {chosen} FROM {self.place} WHERE {' OR '.join(tests)}" if tests else None

    def holds(self, column, value):
        """Whether a value is short enough for a column."""
        characters, size = self.columns[column]
        if len(value) <= characters:
            return True
        # A byte that goes on with a character is none of its own.
        return len(value) <= size and sum(1 for byte in value if byte & 0xC0 != 0x80) <= characters


def _rewrite_table(table, rewriter, cells, changes):
    query = table.query(rewriter.needles)
    if query is None:
        return 0
    changed, waiting, size = 0, [], 0
    # Bytes as they are stored, whatever the column's character set.
    for row in sql.within(table.database).stream(query, "SET SESSION character_set_results = NULL"):
        found = _changes(table, row, rewriter, changes)
        if found.sets:
            waiting.append((table.place, found))
            size += found.size
        if len(waiting) >= BATCH or size >= BATCH_BYTES:
            changed += _written(table, cells, waiting, changes)
            waiting, size = [], 0
    return changed + _written(table, cells, waiting, changes)


def _written(table, cells, rows, changes):
    """Write rows; how many of their cells were taken."""
    refused = cells.change(rows)
    for row in refused:
        for column, old, _ in row.sets:
            changes.leave(table.name, column, NOT_TAKEN, excerpt(old))
    return sum(len(row.sets) for _, row in rows) - sum(len(row.sets) for row in refused)


class Row:
    """What changes in one row: conditions that name it, and for each column its value before and after.

    ``timed``: columns that keep their values while MariaDB would set them.
    """

    def __init__(self, where, sets, timed=()):
        self.where = where
        self.sets = sets
        self.timed = timed

    @property
    def size(self):
        return sum(len(old) + len(new) for _, old, new in self.sets)

    def update(self, table):
        """Without a key, what the row says is what names it."""
        where = self.where or [says(column, old) for column, old, _ in self.sets]
        return self._statement(table, [(column, new) for column, _, new in self.sets], where)

    def update_in_use(self, table):
        """Only while it says what it said."""
        where = [*self.where, *(says(column, old) for column, old, _ in self.sets)]
        return self._statement(table, [(column, new) for column, _, new in self.sets], where)

    def back(self, table):
        where = [*self.where, *(says(column, new) for column, _, new in self.sets)]
        return self._statement(table, [(column, old) for column, old, _ in self.sets], where)

    def _statement(self, table, sets, where):
        values = [f"{identifier(column)} = {literal(value)}" for column, value in sets]
        values += [f"{identifier(column)} = {identifier(column)}" for column in self.timed]
        return f"UPDATE {table} SET {', '.join(values)} WHERE {' AND '.join(where)}"


def _changes(table, cells, rewriter, changes):
    places, values = cells[: len(table.key)], cells[len(table.key) :]
    sets = []
    for column, old in zip(table.columns, values):  # noqa: B905 - not in Python 3.9
        if old is None:
            continue
        found = rewriter.read(old)
        for reason, example in found.left:
            changes.leave(table.name, column, reason, example)
        if found.value != old and not table.holds(column, found.value):
            changes.leave(table.name, column, TOO_LONG, excerpt(old))
        elif found.value != old:
            sets.append((column, old, found.value))
    for (name, number), cell in zip(table.key, places):  # noqa: B905
        if not number and name in table.key_texts and rewriter(cell) != cell:
            changes.leave(table.name, name, HOLDS_KEY, excerpt(cell))
    where = [
        f"{identifier(name)} = {int(cell)}" if number else says(name, cell)
        for (name, number), cell in zip(table.key, places)  # noqa: B905
    ]
    return Row(where, [*sets, *permalink(dict(zip(table.columns, values)), sets)], table.timed)  # noqa: B905


def permalink(values, sets):
    """Yoast SEO finds its rows by a digest of their address, which follows it. ``values``: by column."""
    if not {"permalink", "permalink_hash"} <= values.keys():
        return []
    was = values["permalink_hash"]
    return [
        ("permalink_hash", was, _hashed(new))
        for column, old, new in sets
        if column == "permalink" and was == _hashed(old)
    ]


def _hashed(permalink):
    return b"%d:%s" % (len(permalink), hashlib.md5(permalink, usedforsecurity=False).hexdigest().encode())


def says(column, value):
    said = f"CAST({identifier(column)} AS BINARY)"
    if len(value) > _LONG:
        return f"SHA2({said}, 256) = {literal(hashlib.sha256(value).hexdigest())}"
    return f"{said} = {literal(value)}"


class AtRest:
    """Changes rows that nobody else writes to; a context, whose connection ends with it."""

    def __init__(self, database):
        self.database = database
        self._open()

    def _open(self):
        self.session = sql.opened(self.database)
        # What is in a table already may be what strict modes refuse, such as the date 0000-00-00. What would be cut off
        # is told before: see ``Table.holds``.
        self.session.say("SET SESSION sql_mode = ''")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.close()

    def change(self, rows):
        """Change rows, ``[(table, Row)]``: those that the table does not take stay, and are returned."""
        return self._each(rows, [row.update(table) for table, row in rows])

    def _each(self, rows, statements):
        try:
            self.write(statements)
            return []
        except sql.SqlError as error:
            if error.code not in REFUSED:
                raise
        refused = []
        for (_, row), statement in zip(rows, statements):  # noqa: B905
            try:
                self.write([statement])
            except sql.SqlError as error:
                if error.code not in REFUSED:
                    raise
                refused.append(row)
        return refused

    def write(self, statements, together=BATCH):
        """``together``: how many go into one transaction."""
        for start in range(0, len(statements), together):
            self.session.together(statements[start : start + together])


class InUse(AtRest):
    """Changes rows of a site at work, in small transactions: whoever is buying something waits a moment at most.

    The way back is on disk before a row is changed.
    """

    def __init__(self, database, undo=None):
        super().__init__(database)
        self.patience = Patience()
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
        return self._each(rows, [row.update_in_use(table) for table, row in rows])

    def write(self, statements, together=20):
        bounded = [self.bounded(statement) for statement in statements]
        for start in range(0, len(bounded), together):
            self._written(bounded[start : start + together])

    def _written(self, part):
        begun = time.monotonic()
        for attempt in range(ROUNDS):
            try:
                super().write(part, len(part))
                break
            except sql.SqlError as error:
                # Where both wait for each other, we begin again: what is written already says no more what it said.
                if attempt + 1 == ROUNDS or error.code not in AGAIN or time.monotonic() - begun > PATIENCE_S:
                    raise
                if error.code == sql.LOCKED:
                    sql.end_prepared()

    def bounded(self, statement):
        """The statement with an end that no trigger can put off."""
        seconds = (2 if self.patience.is_used_up else STATEMENT_S) + (len(statement) >> 20)
        locks = min(seconds // 2, LOCK_S)
        return (
            f"SET STATEMENT max_statement_time = {seconds}, lock_wait_timeout = {locks}, "
            f"innodb_lock_wait_timeout = {locks} FOR {statement}"
        )

    def back(self, statements, together=20):
        """Run statements of a way back; those that the database does not take, ``[(statement, SqlError)]``.

        One that is refused keeps no other back. A Failure where the server is not there, or has no room now.
        """
        refused = []
        for start in range(0, len(statements), together):
            part = statements[start : start + together]
            if not self.patience.is_used_up:
                if (error := self._refusal(part)) is None:
                    continue
                if len(part) == 1:
                    refused.append((part[0], error))
                    continue
            errors = [self._refusal([one]) for one in part]
            refused += [(one, error) for one, error in zip(part, errors) if error]  # noqa: B905
        return refused

    def _refusal(self, statements):
        """Run statements together; why none of them counts, or None."""
        if any(map(self.patience.is_over_for, statements)):
            return sql.SqlError("Its table makes everybody wait.", TOO_SLOW)
        begun = time.monotonic()
        try:
            return self._refused(statements)
        finally:
            self.patience.spent(time.monotonic() - begun, statements)

    def _refused(self, statements):
        # The server would end the connection.
        if any(len(statement) + _LONG > sql.PACKET for statement in statements):
            return sql.SqlError("It is longer than what MariaDB takes.", TOO_LARGE)
        found = None
        for _ in range(2):
            try:
                self.write(statements)
                return None
            except sql.SqlError as error:
                found = error
            if self._answers():
                break
            # A server that was started anew takes it now; a statement that ends its own connection does so again.
            self.session.close()
            self._open()
        # A site's own triggers give whatever reason they like, and they must not keep us from everything else.
        if found.code in PASSING and (not self._has_triggers() or _is_in_need()):
            raise found
        return found

    def _answers(self):
        try:
            self.session.say("DO 0")
        except sql.SqlError:
            return False
        return True

    def _has_triggers(self):
        """Whether an UPDATE runs anything of the site's: that may call its routines; nothing else of a table can."""
        where = f"trigger_schema = {literal(self.database)}"
        return int(sql.root().value(f"SELECT COUNT(*) FROM information_schema.triggers WHERE {where}")) > 0


def _is_in_need():
    """Whether the server itself cannot write now, whatever a site says."""
    directory, is_read_only = sql.root().rows("SELECT @@datadir, @@GLOBAL.read_only")[0]
    return is_read_only != "0" or shutil.disk_usage(directory).free < SPARE
