# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What an update's code does to the tables, seen on the copy on which it was rehearsed, and how that is taken out.

Visitors write into the same tables, so the tables as they were before would be the wrong way back. What the rehearsal
changed is kept instead: of each row that differed its values before (database ``…_from``) and after (``…_into``). Going
back is a matter of cells: what the update changed on the copy is again what it was in the snapshot, and all else stays
as it is. Nothing is thrown away: what has to leave the site's tables goes to database ``…_failed``, and so do rows,
before and after, in which a cell is neither what it was nor what the update made of it on the copy.
"""

from __future__ import annotations

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.dump import OURS
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import presets
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.baseline import IDENTITY, shapes
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal, qualified

MARK = "trueup_migration"
NAMED = 5
"""Tables that a message names, of each kind."""
OPTIONS = "wp_options"
AS_IT_IS = "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'"
"""A value that is there goes over as it is, be it a date that is none."""


class Migration:
    """The changes of one environment's update. Its databases go with ``forget``, but for the one of what was set aside.

    ``before``: name of the database that has the tables as they were when the update's code was switched to.
    """

    def __init__(self, layout, before):
        name = layout.database
        self.served = name
        self.before = before
        self.former = f"{name}_from"
        self.later = f"{name}_into"
        self.draft = f"{name}_copy"
        self.aside = f"{name}_failed"

    # On the copy

    def begin(self, rehearsed):
        """Keep the tables of the database ``rehearsed`` as they are now, before the update's code runs on them."""
        sql.make_anew(self.draft)
        session = sql.within(rehearsed)
        session.say(AS_IT_IS)
        for table, names in _columns(rehearsed).items():
            _copy(session, rehearsed, self.draft, table, names)

    def record(self, rehearsed, release_id):
        """Keep what differs now, as the doing of release ``release_id``."""
        sql.make_anew(self.former)
        sql.make_anew(self.later)
        session = sql.within(rehearsed)
        session.say(AS_IT_IS)
        was, now = shapes(self.draft), shapes(rehearsed)
        there, created = set(sql.tables(self.draft)), set(sql.tables(rehearsed))
        for table in sorted(there & created):
            if table in was and table in now and was[table].key == now[table].key:
                try:
                    self._record(session, was[table], now[table], rehearsed)
                except sql.SqlError:
                    # Keys that cannot be compared, as of another collation: its rows stay as they are.
                    session.say(*(f"DROP TABLE IF EXISTS {qualified(one, table)}" for one in (self.former, self.later)))
        for table, names in _columns(rehearsed).items():
            if table not in there:
                _copy(session, rehearsed, self.later, table, names)
        mark = qualified(self.later, MARK)
        session.say(
            f"CREATE TABLE {mark} (id CHAR(36) PRIMARY KEY) ENGINE=InnoDB",
            f"INSERT INTO {mark} VALUES ({literal(release_id)})",
        )
        sql.drop(self.draft)

    def _record(self, session, was, now, rehearsed):
        both = [column for column in was.columns if column in now.columns]
        old, new = qualified(self.draft, was.name), qualified(rehearsed, was.name)
        same = _same(was.key, "o", "n")
        other = _differ(both, "o", "n")
        anew = f"FROM {new} n LEFT JOIN {old} o ON {same} WHERE {_missing(was, 'o')} OR {other}"
        past = f"FROM {old} o LEFT JOIN {new} n ON {same} WHERE {_missing(was, 'n')} OR {other}"
        if session.value(f"SELECT EXISTS(SELECT 1 {anew}) OR EXISTS(SELECT 1 {past})") == "0":
            return
        for database, model, shape, alias, chosen in (
            (self.later, new, now, "n", anew),
            (self.former, old, was, "o", past),
        ):
            target = qualified(database, was.name)
            session.say(
                f"CREATE TABLE {target} LIKE {model}",
                f"INSERT INTO {target} ({_listed(shape.columns)}) SELECT {_all(shape.columns, alias)} {chosen}",
            )
            if was.name == OPTIONS:
                # A visitor's request changes these, and nobody has to put them back.
                churn = literal(f"^(?:{presets.CHURN})$")
                session.say(f"DELETE FROM {target} WHERE option_name REGEXP {churn}")

    # On the site

    def is_of(self, release_id):
        """Whether what the release's code changes was recorded, to the end."""
        if MARK not in sql.tables(self.later):
            return False
        rows = sql.within(self.later).rows(f"SELECT id FROM {qualified(self.later, MARK)}")
        return rows == [(release_id,)]

    def take_out(self, release_id):
        """Take the changes of a release's code out of the tables that are served, of which nobody writes any meanwhile.

        What a person should know of it, as sentences. It may be interrupted and repeated.
        """
        if not self.is_of(release_id):
            for table in sorted(_theirs(self.before)):
                self._set_aside(self.before, table)
            return [
                "What its code changed in the tables was not recorded in its rehearsal, so they stay as they are. The "
                f"tables as they were before it are in database {self.aside} on the node."
            ]
        told = [*self._tables(), *self._structures(), *self._rows()]
        sql.drop(self.draft)
        return told

    def forget(self):
        sql.drop(self.former, self.later, self.draft)

    def _tables(self):
        """Tables that it made leave, unless somebody wrote into them; those that it removed come back."""
        there, before = _theirs(self.served), _theirs(self.before)
        kept, unread = [], []
        for table in sorted(there - before):
            try:
                if count := self._written(table):
                    kept.append(f"{table} ({count} rows)")
                else:
                    self._set_aside(self.served, table)
            except sql.SqlError as error:
                unread.append(f"{table} (error {error.code})")
        # A sequence, or a table with a history, may be there by the name of one that it removed.
        named = _names(self.served)
        for table in sorted((before - there) & named):
            self._set_aside(self.served, table, (self.before, self.served, table))
        sql.move([(self.before, self.served, table) for table in sorted(before - there - named)])
        stay = "Tables that it made were written into meanwhile, and stay, though the former code knows none of them"
        broken = "Tables that the former code does not know cannot be read, and stay"
        return [f"{text}: {_few(names)}." for text, names in ((stay, kept), (broken, unread)) if names]

    def _written(self, table):
        """How many rows a table has that the update's code did not put there on the copy."""
        session, live = sql.within(self.served), qualified(self.served, table)
        made, here = shapes(self.later).get(table), shapes(self.served).get(table)
        if made is None or here is None or made.columns != here.columns:
            known = 0
            if table in sql.tables(self.later):
                known = int(session.value(f"SELECT COUNT(*) FROM {qualified(self.later, table)}"))
            return max(0, int(session.value(f"SELECT COUNT(*) FROM {live}")) - known)
        return int(
            session.value(
                f"SELECT COUNT(*) FROM {live} t LEFT JOIN {qualified(self.later, table)} n "
                f"ON {_same(here.key, 't', 'n')} WHERE {_missing(here, 'n')} OR {_differ(here.columns, 't', 'n')}"
            )
        )

    def _set_aside(self, database, table, *more):
        """Move a table to the database of what failed, and ``more`` in the same step."""
        steps = [f"{qualified(database, table)} TO {self._place_aside(table)}"]
        steps += [f"{qualified(one, it)} TO {qualified(other, it)}" for one, other, it in more]
        sql.within(self.served).say(f"RENAME TABLE {', '.join(steps)}")

    def _place_aside(self, table):
        """A name for a table, with its database, that is free in the one of what failed."""
        sql.root().say(f"CREATE DATABASE IF NOT EXISTS {identifier(self.aside)} {sql.AS_OURS}")
        taken, name, number = _names(self.aside), table, 1
        while name in taken:
            number += 1
            name = f"{table[: sql.LONGEST_NAME - 8]}__{number}"
        return qualified(self.aside, name)

    def _structures(self):
        """Columns and keys that it changed are again as they were."""
        kept = []
        for table in sorted(_theirs(self.served) & _theirs(self.before)):
            if _structure(self.served, table) == _structure(self.before, table):
                continue
            if _is_tied(self.served, table):
                kept.append(table)
                continue
            try:
                self._rebuild(table)
            except sql.SqlError:
                kept.append(table)
        stay = "Tables whose former columns do not hold what is in them now stay as it made them"
        return [f"{stay}: {_few(kept)}."] if kept else []

    def _rebuild(self, table):
        """The table anew, as it was made before, with the rows that are there now."""
        sql.make_anew(self.draft)
        draft, live, before = (qualified(name, table) for name in (self.draft, self.served, self.before))
        there, former = _columns(self.served)[table], _columns(self.before)[table]
        both = _listed([column for column in former if column in there])
        steps = [
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'",
            f"CREATE TABLE {draft} LIKE {before}",
            f"INSERT INTO {draft} ({both}) SELECT {both} FROM {live}",
        ]
        shape = shapes(self.before).get(table)
        lost = [column for column in former if column not in there]
        if lost and shape and set(shape.key) <= set(there):
            # Every column is named, or MariaDB would date those anew that tell of the last change.
            sets = ", ".join(f"t.{_q(column)} = {'b' if column in lost else 't'}.{_q(column)}" for column in former)
            steps.append(f"UPDATE {draft} t JOIN {before} b ON {_same(shape.key, 't', 'b')} SET {sets}")
        following = sql.root().value(
            "SELECT auto_increment FROM information_schema.tables "
            f"WHERE table_schema = {literal(self.served)} AND table_name = {literal(table)}"
        )
        if following:
            # No number is given twice.
            steps.append(f"ALTER TABLE {draft} AUTO_INCREMENT = {int(following)}")
        with sql.opened(self.served) as session:
            session.say(*steps)
        self._set_aside(self.served, table, (self.draft, self.served, table))

    def _rows(self):
        """Cells that it changed, and nobody since, are again what they were; rows that it removed are there again."""
        shaped = [shapes(name) for name in (self.served, self.before, self.former, self.later)]
        both, kept = [], []
        for table in sorted(shaped[0].keys() & shaped[1].keys() & shaped[2].keys() & shaped[3].keys()):
            found = [one[table] for one in shaped]
            if len({one.key for one in found}) > 1:
                kept.append(table)
                continue
            columns = [column for column in found[0].columns if all(column in one.columns for one in found[1:])]
            try:
                if count := self._cells(found[0], columns):
                    both.append(f"{table} ({count} rows)")
            except sql.SqlError as error:
                kept.append(f"{table} (error {error.code})")
        told = f"What it changed, and somebody else too, is in database {self.aside} as it was before and after"
        stay = "Rows of these tables stay as they are now"
        return [f"{text}: {_few(names)}." for text, names in ((told, both), (stay, kept)) if names]

    def _cells(self, shape, columns):
        """Put the cells of one table back; how many rows others had changed too, which are set aside."""
        live, before, old, new = (
            f"{qualified(name, shape.name)} {alias}"
            for name, alias in ((self.served, "t"), (self.before, "b"), (self.former, "o"), (self.later, "n"))
        )
        by = {alias: _same(shape.key, "t", alias) for alias in "bon"}
        values = [column for column in columns if column not in shape.key]
        own = {column: _differ([column], "o", "n") for column in values}
        changed = f"{live} JOIN {old} ON {by['o']} JOIN {new} ON {by['n']} JOIN {before} ON {by['b']}"
        known = f"LEFT JOIN {old} ON {by['o']} LEFT JOIN {before} ON {by['b']}"
        added = f"{live} JOIN {new} ON {by['n']} {known} WHERE {_missing(shape, 'o')} AND {_missing(shape, 'b')}"
        if _is_numbered(self.served, shape.name):
            # Whatever was added next has the number.
            added += f" AND {_equal(columns, 't', 'n')}"
        contested = [f"{one} AND {_differ([c], 't', 'n')} AND {_differ([c], 't', 'b')}" for c, one in own.items()]
        both = f"{changed} WHERE {' OR '.join(contested) or 'FALSE'}"
        count = self._keep_both(shape, both, f"{added} AND {_differ(columns, 't', 'n')}")
        steps = []
        if values:
            # The former code reads the former values, whatever became of those that the update made.
            sets = (f"t.{_q(c)} = IF({one}, b.{_q(c)}, t.{_q(c)})" for c, one in own.items())
            steps.append(f"UPDATE {changed} SET {', '.join(sets)}")
        steps.append(f"DELETE t FROM {added}")
        steps.append(
            f"INSERT IGNORE INTO {qualified(self.served, shape.name)} ({_listed(columns)}) "
            f"SELECT {_all(columns, 'b')} FROM {before} JOIN {old} ON {_same(shape.key, 'b', 'o')} "
            f"LEFT JOIN {new} ON {_same(shape.key, 'b', 'n')} LEFT JOIN {live} ON {by['b']} "
            f"WHERE {_missing(shape, 'n')} AND {_missing(shape, 't')}"
        )
        with sql.opened(self.served) as session:
            # A transaction that is not ended is undone.
            session.say(f"USE {identifier(self.served)}", AS_IT_IS, "START TRANSACTION", *steps, "COMMIT")
        return count

    def _keep_both(self, shape, changed, added):
        """Set rows aside that are not what the update made of them on the copy, before and after; how many."""
        session = sql.within(self.served)
        count = sum(int(session.value(f"SELECT COUNT(*) FROM {chosen}")) for chosen in (changed, added))
        if count:
            columns = shape.columns
            session.say(
                f"CREATE TABLE {self._place_aside(shape.name)} AS "
                f"SELECT 'before' AS trueup_state, {_all(columns, 'b')} FROM {changed} "
                f"UNION ALL SELECT 'after', {_all(columns, 't')} FROM {changed} "
                f"UNION ALL SELECT 'after', {_all(columns, 't')} FROM {added}"
            )
        return count


def _copy(session, source, target, table, columns):
    there, here, chosen = qualified(source, table), qualified(target, table), _listed(columns)
    session.say(f"CREATE TABLE {here} LIKE {there}", f"INSERT INTO {here} ({chosen}) SELECT {chosen} FROM {there}")


def _names(database):
    """What has a table's name there, whatever it is."""
    rows = sql.root().rows(f"SELECT table_name FROM information_schema.tables WHERE table_schema = {literal(database)}")
    return {name for (name,) in rows}


def _theirs(database):
    """Names of the tables that are the site's own."""
    return {name for name in sql.tables(database) if not name.startswith(OURS)}


def _columns(database):
    """``{table: columns}`` of the base tables, in their order; without those that are computed of others."""
    rows = sql.within(database).rows(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c "
        "JOIN information_schema.tables t USING (table_schema, table_name) WHERE t.table_type = 'BASE TABLE' "
        f"AND c.table_schema = {literal(database)} AND c.extra NOT LIKE '%GENERATED%' "
        "ORDER BY c.table_name, c.ordinal_position"
    )
    found = {}
    for table, column in rows:
        found.setdefault(table, []).append(column)
    return found


def _structure(database, table):
    """Columns and keys, as facts that are alike for tables that were made alike."""
    where = f"table_schema = {literal(database)} AND table_name = {literal(table)}"
    session = sql.within(database)
    columns = session.rows(
        "SELECT column_name, column_default, is_nullable, column_type, collation_name, extra, generation_expression "
        f"FROM information_schema.columns WHERE {where} ORDER BY ordinal_position"
    )
    keys = session.rows(
        "SELECT index_name, non_unique, seq_in_index, column_name, sub_part, index_type "
        f"FROM information_schema.statistics WHERE {where} ORDER BY index_name, seq_in_index"
    )
    return columns, keys


def _is_tied(database, table):
    """Whether a foreign key leads from the table or to it: a table that is made anew would lose it."""
    return bool(
        sql.root().value(
            "SELECT COUNT(*) FROM information_schema.referential_constraints "
            f"WHERE constraint_schema = {literal(database)} "
            f"AND {literal(table)} IN (table_name, referenced_table_name)"
        )
        != "0"
    )


def _is_numbered(database, table):
    """Whether the server gives each new row the next number."""
    return (
        bool(
            sql.root().value(
                "SELECT auto_increment FROM information_schema.tables "
                f"WHERE table_schema = {literal(database)} AND table_name = {literal(table)}"
            )
        )
        and table not in IDENTITY
    )


def _few(names):
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(name[:80] for name in names[:NAMED])}{more}"


def _q(column):
    return identifier(column)


def _listed(columns):
    return ", ".join(map(identifier, columns))


def _all(columns, alias):
    return ", ".join(f"{alias}.{identifier(column)}" for column in columns)


def _same(key, one, other):
    return " AND ".join(f"{one}.{identifier(column)} = {other}.{identifier(column)}" for column in key)


def _equal(columns, one, other):
    """Byte for byte, whatever the collation takes for alike."""
    return " AND ".join(
        f"CAST({one}.{identifier(column)} AS BINARY) <=> CAST({other}.{identifier(column)} AS BINARY)"
        for column in columns
    )


def _differ(columns, one, other):
    return f"NOT ({_equal(columns, one, other)})"


def _missing(shape, alias):
    """That an outer join found no row."""
    return f"{alias}.{identifier(shape.key[0])} IS NULL"
