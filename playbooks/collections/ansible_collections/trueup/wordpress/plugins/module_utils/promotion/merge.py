# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Rows that a promotion moves, put into the target's tables while it is in use.

The source's write set lies in the draft database, at the target's address. What moves is decided against the target
as it is now, and put in by one transaction that locks these rows alone and looks again, under the locks, whether they
still are what was compared: every other row, and every other table, goes on being written. What was there before is
kept in the database ``…_former`` by the same transaction, so that going back is one transaction too.
"""

from __future__ import annotations

import time

from ansible_collections.trueup.wordpress.plugins.module_utils import room, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite import Rewriter
from ansible_collections.trueup.wordpress.plugins.module_utils.content.snapshot import DATABASES
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import baseline as baselines
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import presets
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.threeway import compare
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal, qualified

ROUNDS = 3
MOVED_ON = "TRUEUP_MOVED_ON"
DEADLOCK = 1213
MARK = "trueup_content"
OPTIONS = "wp_options"
LOCK_SECONDS = 4
"""How long the transaction waits for somebody else's lock; it holds its own no longer than its statements take."""
SPARE = 256 << 20
"""Bytes of the databases' disk that a promotion leaves free."""
NAMED = 20
"""Keys that a message or a result names, of each kind."""


def address_taken_out(url, site, *, layered=True):
    """What turns a value at ``url``, of the site in this directory, into one that says the same anywhere.

    ``layered``: as the baseline says that its digests were made.
    """
    directories = [(site, baselines.DIRECTORY)] if layered else []
    return Rewriter([(url, baselines.PLACE)], directories, layered=layered)


class Tables:
    """The write set of one environment's database."""

    def __init__(self, database, normal, preset):
        self.database = database
        self.normal = normal
        shapes = baselines.shapes(database)
        self.shapes = {name: shape for name, shape in shapes.items() if presets.is_written(name, preset)}

    def digests(self, table):
        return baselines.rows(self.database, self.shapes[table], self.normal)


def compared(source, target, baseline, declared=(), staying=None):
    """``{table: Comparison}`` of the tables that both have and that the baseline knows.

    ``declared``: options that are left alone, as those that the target's document sets. ``staying``: keys by table of
    rows that are.
    """
    found = {}
    alone = {table: frozenset(keys) for table, keys in (staying or {}).items()}
    declared = frozenset(declared)
    for table in sorted({*source.shapes, *target.shapes}):
        if table in source.shapes and table in target.shapes:
            sides = (baseline.get(table, {}), source.digests(table), target.digests(table))
            comparison = compare(*sides, ignored=lambda key, table=table: presets.is_ignored(table, key, declared))
            found[table] = comparison.without(alone.get(table, ()))
    return found


def conflicts(comparisons):
    """What both sides changed, as ``table: key`` in a fixed order."""
    return [f"{table}: {key}" for table, one in sorted(comparisons.items()) for key in one.conflicts]


def refuse_conflicts(found):
    if found:
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise Failure(
            f"Changed on both sides since the copy was made: {'; '.join(found[:NAMED])}{more}. Make them the same on "
            "both sides, check for drift again, and promote again.",
            trueup_code="PROMOTION_CONFLICT",
        )


def refuse_without_room(database, tables, made=()):
    """Each row is there three times for a moment: in the draft, as what is put in, and as what was there.

    ``made``: those of the tables that are made in the target, whole: what the draft has of them is moved.
    """
    rows = sql.root().rows(
        "SELECT table_name, COALESCE(data_length + index_length, 0) FROM information_schema.tables "
        f"WHERE table_schema = {literal(database)} AND table_name IN ({sql.literals(tables)})"
    )
    needs = sum(int(size) * (1 if table in made else 3) for table, size in rows)
    if lack := room.lacking({DATABASES: needs}, SPARE):
        needed, free = lack
        raise Failure(
            f"The tables that move need {needed >> 20} MiB on the node's disk, of which {SPARE >> 20} stay free, and "
            f"{free >> 20} MiB are free. Free some, or choose fewer of them. Nothing was changed.",
            trueup_code="PROMOTION_NO_ROOM",
        )


class Merge:
    """``forward`` puts in what moves; ``back`` puts back what was there."""

    def __init__(self, layout, staged, former, content_id, merge):
        self.live = layout.database
        self.staged = staged
        self.former = former
        self.content_id = content_id
        # What was sealed before an upgrade does not say how, and was compared in the first way.
        self.normal = address_taken_out(merge["url"], layout.site, layered=merge.get("layered", False))
        self.preset = merge["preset"]
        self.baseline = merge["baseline"]
        self.left_alone = (*merge.get("declared", ()), *merge.get("held", ()))
        self.staying = merge.get("staying")
        self.made = merge.get("made", {})

    def make(self):
        """Put in the tables that come with a plugin, whole and in one step, before anything asks for them."""
        staged, there = set(sql.tables(self.staged)), _names(self.live)
        sql.move([(self.staged, self.live, table) for table in self.made if table in staged and table not in there])

    def unmake(self):
        """Take out the tables that ``make`` put in; sentences about those that stay, as somebody wrote into them."""
        staged, there = set(sql.tables(self.staged)), set(sql.tables(self.live))
        told = []
        for table, checksum in self.made.items():
            if table in staged or table not in there:
                continue
            if not self._taken_out(table, checksum):
                told.append(f"Table {table}, which came with a plugin, was written into meanwhile, and stays.")
        return told

    def _taken_out(self, table, checksum):
        """Whether a table could go, with all that was ever in it."""
        if checksum_of(self.live, table) != checksum:
            return False
        sql.move([(self.live, self.staged, table)])
        if checksum_of(self.staged, table) == checksum:
            return True
        # Somebody wrote into it in this very moment.
        sql.move([(self.staged, self.live, table)])
        return False

    def forward(self):
        """Put in what moves, against the target as it is now. The seconds for which its rows were locked."""
        self.make()
        for _ in range(ROUNDS):
            moves = self._moves()
            self._prepare(moves)
            # What is expected was noted after it was compared: it counts only if the comparison still says the same.
            if _named(self._moves()) != _named(moves):
                continue
            try:
                return self._put_in(moves)
            except sql.SqlError as error:
                if MOVED_ON not in str(error) and error.code != DEADLOCK:
                    raise
        raise Failure(
            f"What is promoted changed on the target {ROUNDS} times while it was being put in. Promote again when "
            "its settings are at rest.",
            trueup_code="PROMOTION_CONFLICT",
        )

    def back(self):
        """Every row that was touched is again what it was, byte for byte."""
        there = baselines.shapes(self.former)
        steps = ["SET SESSION sql_mode = ''", "START TRANSACTION"]
        for table in sorted(name for name in there if name.startswith("wp_")):
            shape, live = there[table], qualified(self.live, table)
            columns = _listed(self._all_columns(table))
            keys = f"{self._keys_of(shape)} d"
            steps.append(f"DELETE t FROM {live} t JOIN {keys} ON {_same(shape, 't', 'd')}")
            steps.append(f"INSERT INTO {live} ({columns}) SELECT {columns} FROM {qualified(self.former, table)}")
        mark, former = qualified(self.live, MARK), qualified(self.former, MARK)
        marked = self._has(self.former, MARK)
        steps.append(f"DELETE FROM {mark}")
        if marked:
            steps.append(f"INSERT INTO {mark} SELECT * FROM {former}")
        self._say([*steps, "COMMIT"])
        if not marked:
            self._say([f"DROP TABLE IF EXISTS {mark}"])

    def _moves(self):
        """``[(shape, keys)]`` of the tables in which anything moves."""
        source = Tables(self.staged, self.normal, self.preset)
        target = Tables(self.live, self.normal, self.preset)
        found = compared(source, target, self.baseline, self.left_alone, self.staying)
        refuse_conflicts(conflicts(found))
        moves = [(target.shapes[table], one.moves) for table, one in found.items() if one.moves]
        for shape, _ in moves:
            if shape.engine != "InnoDB":
                raise Failure(
                    f"Table {shape.name} of {self.live} is kept by {shape.engine}, which cannot undo a change. "
                    f"Convert it (ALTER TABLE {identifier(shape.name)} ENGINE=InnoDB), and promote again."
                )
            if shape.columns != source.shapes[shape.name].columns:
                raise Failure(f"Table {shape.name} has other columns in the source. Update both to one version first.")
        return moves

    def _put_in(self, moves):
        mark = qualified(self.live, MARK)
        steps = [f"SET SESSION sql_mode = '', innodb_lock_wait_timeout = {LOCK_SECONDS}", "START TRANSACTION"]
        for shape, _ in moves:
            steps += self._unchanged(shape)
        for shape, _ in moves:
            steps += self._steps(shape)
        steps.append(f"DELETE FROM {mark}")
        steps.append(f"INSERT INTO {mark} VALUES ({literal(self.content_id)})")
        started = time.monotonic()
        self._say([*steps, "COMMIT"])
        seconds = time.monotonic() - started
        if moves:
            # They were made of what these rows said before. Whoever needs one makes it anew, as after its time.
            kept = literal("^(?:_site)?_transient_")
            self._say([f"DELETE FROM {qualified(self.live, OPTIONS)} WHERE option_name REGEXP {kept}"])
        return seconds

    def _prepare(self, moves):
        """All that needs no lock: lists of what moves, with what is expected there, and room for what was there."""
        sql.make_anew(self.former)
        mark = qualified(self.live, MARK)
        steps = []
        if self._has(self.live, MARK):
            steps.append(f"CREATE TABLE {qualified(self.former, MARK)} AS SELECT * FROM {mark}")
        steps.append(f"CREATE TABLE IF NOT EXISTS {mark} (id CHAR(36) PRIMARY KEY) ENGINE=InnoDB")
        for shape, keys in moves:
            steps.append(f"CREATE TABLE {qualified(self.former, shape.name)} LIKE {qualified(self.live, shape.name)}")
            steps += self._keys(shape, keys)
        self._say(steps)

    def _keys_of(self, shape):
        return qualified(self.former, f"trueup_keys_{shape.name}")

    def _keys(self, shape, keys):
        """A table of the keys that move, each with the digest of the row that the target has there (null: none)."""
        name, live = self._keys_of(shape), qualified(self.live, shape.name)
        columns = _listed(shape.key)
        values = ", ".join(f"({', '.join(literal(part) for part in key.split(','))})" for key in keys)
        if len(shape.key) == 1:
            values = ", ".join(f"({literal(key)})" for key in keys)
        return [
            f"CREATE TABLE {name} AS SELECT {columns} FROM {live} LIMIT 0",
            f"INSERT INTO {name} ({columns}) VALUES {values}",
            f"ALTER TABLE {name} ADD COLUMN trueup_was CHAR(40) NULL",
            f"UPDATE {name} d JOIN {live} t ON {_same(shape, 't', 'd')} "
            f"SET d.trueup_was = SHA1({baselines.raw(shape)})",
        ]

    def _unchanged(self, shape):
        """Lock the rows, and end the transaction if one of them is not what it was."""
        return [
            f"SELECT COUNT(*) INTO @moved_on FROM {self._keys_of(shape)} d "
            f"LEFT JOIN {qualified(self.live, shape.name)} t ON {_same(shape, 't', 'd')} "
            f"WHERE NOT (IF({_of('t', shape.key[0])} IS NULL, NULL, SHA1({baselines.raw(shape)})) <=> d.trueup_was) "
            "FOR UPDATE",
            f"IF @moved_on > 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{MOVED_ON}'; END IF",
        ]

    def _steps(self, shape):
        live, staged = qualified(self.live, shape.name), qualified(self.staged, shape.name)
        keys = f"{self._keys_of(shape)} d"
        everything = self._all_columns(shape.name)
        theirs = ", ".join(_of("s", column) for column in shape.columns)
        sets = ", ".join(f"{_of('t', column)} = {_of('s', column)}" for column in shape.columns)
        mine, both = _same(shape, "t", "d"), _same(shape, "s", "d")
        whole = ", ".join(_of("t", column) for column in everything)
        return [
            f"INSERT INTO {qualified(self.former, shape.name)} ({_listed(everything)}) SELECT {whole} FROM {live} t "
            f"JOIN {keys} ON {mine}",
            f"DELETE t FROM {live} t JOIN {keys} ON {mine} LEFT JOIN {staged} s ON {both} "
            f"WHERE {_of('s', shape.key[0])} IS NULL",
            f"UPDATE {live} t JOIN {keys} ON {mine} JOIN {staged} s ON {both} SET {sets}",
            f"INSERT INTO {live} ({_listed(shape.columns)}) SELECT {theirs} FROM {staged} s JOIN {keys} ON {both} "
            "WHERE d.trueup_was IS NULL",
        ]

    def _all_columns(self, table):
        return sql.stored_columns(self.live, table)

    def _has(self, database, table):
        return sql.base_table(sql.within(database), database, table)

    def _say(self, statements):
        """A transaction that is not ended by them is undone."""
        with sql.opened(self.live) as session:
            session.say(f"USE {identifier(self.live)}", *statements)


def checksum_of(database, table):
    """Of all rows of a table, in whatever order."""
    ((_, checksum),) = sql.within(database).rows(f"CHECKSUM TABLE {qualified(database, table)} EXTENDED")
    return checksum


def _names(database):
    """What has a table's name there, be it a view."""
    rows = sql.root().rows(f"SELECT table_name FROM information_schema.tables WHERE table_schema = {literal(database)}")
    return {name for (name,) in rows}


def _named(moves):
    return [(shape.name, keys) for shape, keys in moves]


def _same(shape, one, other):
    return " AND ".join(f"{_of(one, column)} = {_of(other, column)}" for column in shape.key)


def _of(alias, column):
    return f"{alias}.{identifier(column)}"


def _listed(columns):
    return ", ".join(map(identifier, columns))
