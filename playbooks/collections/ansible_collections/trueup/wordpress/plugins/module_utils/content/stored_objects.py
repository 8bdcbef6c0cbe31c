# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What a site's database holds beside its tables: views, triggers, routines and events.

RENAME TABLE takes none of them to another database. So they are read as texts, dropped, and made anew where their
tables came to. Root reads their names and the texts of routines, which are rows of the server's own tables. Whatever
makes one again is a session with rights in the site's databases alone, and whoever makes it becomes its definer.
"""

from __future__ import annotations

import contextlib
import graphlib
import json
import re
from collections import namedtuple

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.dump import OURS
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal, qualified

UNMOVABLE = "CONTENT_UNMOVABLE"
KEPT_TABLE = f"{OURS}objects"
"""Holds the texts where a database is at rest, and in a backup."""
MOST, MOST_BYTES = 2000, 8 << 20
MOST_KEPT = 64 << 20
"""Characters of their texts as JSON, in which some characters are twelve."""
ROUNDS = 50
"""How often so many are dropped; a site at work may make new ones meanwhile."""
LONGEST_S = 60
"""How long the server may take to make one."""
NAMED = 5

VIEW, TRIGGER, EVENT = "VIEW", "TRIGGER", "EVENT"
ROUTINES = ("FUNCTION", "PROCEDURE")
PACKAGES = ("PACKAGE BODY", "PACKAGE")
"""None is moved; the server knows their words in Oracle's mode alone."""
ORDER = (*ROUTINES, VIEW, TRIGGER, EVENT)

_QUOTED = r"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\")"
_DEFINER = re.compile(rf"\A(CREATE (?:OR REPLACE )?(?:ALGORITHM=\w+ )?)DEFINER={_QUOTED}(?:@{_QUOTED})? ")
_NAME = re.compile(r"`((?:[^`]|``)+)`")
_WORD = r"0-9A-Za-z_$\x80-\U0010ffff"
_CHARACTER_SET = re.compile(r"[a-z0-9_]{2,64}")
_COLUMNS = {VIEW: (1, None, None, 2, 3), TRIGGER: (2, 1, None, 3, 4), EVENT: (3, 1, 2, 4, 5)}
"""Where an answer to SHOW CREATE has the text, sql_mode, time zone, character set and collation."""


class StoredObject(namedtuple("StoredObject", "kind name text sql_mode time_zone character_set collation")):
    """One of them: the statement that makes it, without a definer, and what its session has to be set to."""

    __slots__ = ()

    def steps(self, texts_say, acting):
        """Statements that make it. ``texts_say``: names to replace; ``acting``: an event that is on stays on."""
        for name in (self.character_set, self.collation):
            if not _CHARACTER_SET.fullmatch(name):
                raise _unmovable(f"{self} has a character set that nobody knows")
        found = [
            f"SET SESSION sql_mode = {literal(self.sql_mode)}, character_set_client = {self.character_set}, "
            f"collation_connection = {self.collation}"
        ]
        if self.kind == EVENT:
            # The server makes no event whose time is over; of a time that is not over it knows nothing.
            found.append(f"SET SESSION time_zone = {literal(self.time_zone)}, timestamp = 86400")
        found.append(renamed(self.text, texts_say))
        found.append("SET SESSION sql_mode = '', character_set_client = utf8mb4, timestamp = DEFAULT")
        if self.kind == EVENT and not acting:
            found.append(f"ALTER EVENT {identifier(self.name)} DISABLE")
        return found

    def __str__(self):
        return f"{self.kind.lower()} {self.name[:80]}"


class StoredObjects:
    """Those of one schema. ``database``: the name that their texts may have for it."""

    def __init__(self, database, objects=()):
        self.database = database
        self.objects = tuple(objects)

    def __bool__(self):
        return bool(self.objects)

    def __eq__(self, other):
        return vars(self) == vars(other)

    __hash__ = None

    def dumped(self):
        """As JSON."""
        return json.dumps({"database": self.database, "objects": [list(one) for one in self.objects]})

    @classmethod
    def loaded(cls, text):
        """Of what ``dumped`` answered."""
        try:
            found = json.loads(text)
            objects = [StoredObject(*one) for one in found["objects"]]
        except (ValueError, TypeError, KeyError) as error:
            raise _unmovable(f"What notes its views, triggers and routines cannot be read ({error})") from error
        if not all(one.kind in ORDER and all(isinstance(part, str) for part in one) for one in objects):
            raise _unmovable("What notes its views, triggers and routines is of another form")
        return cls(str(found["database"]), objects)

    def with_names(self, names):
        """The same where tables, and what lies beside them, have other names: ``{old: new}``."""
        changed = (
            one._replace(name=names.get(one.name, one.name), text=renamed(one.text, names)) for one in self.objects
        )
        return StoredObjects(self.database, changed)

    def at_home(self, tables):
        """The same where a former host's name of the schema is its name: in front of ``tables``, views and calls."""
        views = {*tables, *(one.name for one in self.objects if one.kind == VIEW)}
        calls = {one.name for one in self.objects if one.kind in ROUTINES}
        what = rf"{_any(views)}\2(?![{_WORD}])|{_any(calls)}\2\s*\("
        there = re.compile(rf"(?<![{_WORD}.`])(`[^`]+`|[{_WORD}]+)\s*\.\s*(?=(`?)(?:{what}))")

        def home(found):
            is_none = found[1].strip("`") in views or found[1].upper() in ("NEW", "OLD")
            return found[0] if is_none else f"{identifier(self.database)}."

        return StoredObjects(self.database, (one._replace(text=there.sub(home, one.text)) for one in self.objects))

    def called(self, database):
        """The same with another name for the schema."""
        return StoredObjects(database, self.with_names({self.database: database}).objects)

    def without(self, other):
        """Those that ``other`` has none of, by kind and name."""
        theirs = {(one.kind, one.name) for one in other.objects}
        return StoredObjects(self.database, (one for one in self.objects if (one.kind, one.name) not in theirs))

    def make(self, session, database, *, acting=True):
        """Make them in ``database``, where none of them is; what the session's user may not make is a Failure.

        ``acting``: events are what they were; else none of them is on.
        """
        if not self.objects:
            return
        session.say(f"USE {identifier(database)}", f"SET SESSION max_statement_time = {LONGEST_S}")
        names = {self.database: database}
        waiting = _ordered(self.objects)
        while waiting:
            refused = []
            for one in waiting:
                try:
                    session.say(*one.steps(names, acting))
                except sql.SqlError as error:
                    refused.append((one, error))
            if len(refused) == len(waiting):
                told = "; ".join(f"{one}: {str(error)[:300]}" for one, error in refused[:NAMED])
                raise _unmovable(f"What {self.database} has beside its tables cannot all be made anew: {told}")
            # What it needs may have been made meanwhile.
            waiting = [one for one, _ in refused]


def _ordered(objects):
    """What is needed first: functions, views and what they are made of, triggers, events."""
    views = {one.name: one for one in objects if one.kind == VIEW}
    needs = {
        name: {found.replace("``", "`") for found in _NAME.findall(one.text)} & views.keys() - {name}
        for name, one in views.items()
    }
    with contextlib.suppress(graphlib.CycleError):  # a column is called like a view
        views = {name: views[name] for name in graphlib.TopologicalSorter(needs).static_order()}
    rest = [one for one in objects if one.kind != VIEW]
    return [one for kind in ORDER for one in (views.values() if kind == VIEW else rest) if one.kind == kind]


def renamed(text, names):
    """Names replaced in a text wherever they are whole words, in what it quotes as well."""
    if not names:
        return text
    whole = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![{_WORD}])(?:{whole})(?![{_WORD}])", lambda found: names[found[0]], text)


def _any(names):
    return f"(?:{'|'.join(map(re.escape, sorted(names))) or '(?!)'})"


# What is there


def read(database):
    """The StoredObjects of a schema, but for views that are called like tables of Trueup's own."""
    found, size = [], 0
    _refuse_too_much(database)
    one = sql.account(database)
    with sql.Session(one.name, one.password) as session:
        session.say(f"USE {identifier(database)}", "SET SESSION sql_mode = '', character_set_results = NULL")
        for kind, name in _names(database):
            # A view that is called like a table of ours would be in its way.
            if kind not in ROUTINES and not (kind == VIEW and name.startswith(OURS)):
                found.append(_shown(session, kind, name))
                size += len(found[-1].text)
            if size > MOST_BYTES:
                raise _too_much(database)
    return StoredObjects(database, [*_routines(database), *found])


def names(database):
    """What a schema has beside its tables, in words."""
    return [f"{kind.lower()} {name}" for kind, name in _beside_tables(database)]


def drop(database):
    """Drop all that a schema has of them, however many; its tables stay, and what else is called like one."""
    session = sql.within(database)
    for _ in range(ROUNDS):
        found = _beside_tables(database, "table_type = 'VIEW'")
        packages = [one for one in found if one[0] in PACKAGES]
        for kind, name in sorted({*found} - {*packages}, key=lambda one: (-ORDER.index(one[0]), one)):
            session.say(f"DROP {kind} IF EXISTS {qualified(database, name)}")
        if packages:
            with sql.opened(database) as oracles:
                steps = (f"DROP {kind} IF EXISTS {qualified(database, name)}" for kind, name in sorted(packages)[::-1])
                oracles.say("SET SESSION sql_mode = 'ORACLE'", *steps)
        if len(found) <= MOST:
            return
    raise _too_much(database)


def take(database):
    """The StoredObjects of a schema, which has them no more."""
    found = read(database)
    drop(database)
    return found


def check(found, trial):
    """Make them once where nothing depends on it; a Failure where they cannot be made.

    ``trial``: a database that is made for it, with those tables, empty, that they speak of.
    """
    sql.drop(trial)  # of a run that was killed
    if not found:
        return
    texts = "\n".join(one.text for one in found.objects if one.kind in (VIEW, TRIGGER))
    try:
        sql.make_anew(trial)
        sql.within(trial).say(
            *(
                f"CREATE TABLE {qualified(trial, name)} LIKE {qualified(found.database, name)}"
                for name in sql.tables(found.database)
                if name.replace("`", "``") in texts or name in texts
            )
        )
        found.make(maker(trial), trial)
    finally:
        sql.drop(trial)


def maker(database):
    """A session of a user of the run's own, who may make them in this database alone."""
    return sql.account(database, database, "m", {database: "ALL PRIVILEGES"}).session()


def _names(database):
    """``[(kind, name), …]`` in the order in which they are made; what is neither they nor a table is a Failure."""
    rows = _beside_tables(database)
    if fixed := [f"{kind.lower()} {name[:80]}" for kind, name in rows if kind not in ORDER]:
        raise _unmovable(f"Database {database} has what cannot be moved with its tables: {', '.join(fixed[:NAMED])}")
    if len(rows) > MOST:
        raise _too_much(database)
    return sorted(rows, key=lambda one: ORDER.index(one[0]))


def _beside_tables(database, which="table_type <> 'BASE TABLE'"):
    schema = literal(database)
    rows = sql.root().rows(
        f"SELECT table_type, table_name, 0 FROM information_schema.tables WHERE table_schema = {schema} "
        f"AND {which} UNION ALL "
        # Those of one moment act in the order in which they were made.
        "SELECT 'TRIGGER', trigger_name, action_order FROM information_schema.triggers "
        f"WHERE trigger_schema = {schema} UNION ALL SELECT type, name, 0 FROM mysql.proc WHERE db = {schema} "
        f"UNION ALL SELECT 'EVENT', name, 0 FROM mysql.event WHERE db = {schema} ORDER BY 3, 2 "
        f"LIMIT {MOST + 1}"
    )
    return list(dict.fromkeys((kind, name) for kind, name, _ in rows))


def _shown(session, kind, name):
    try:
        (row,) = session.raw(f"SHOW CREATE {kind} {identifier(name)}")
    except sql.SqlError as error:
        raise _unmovable(f"{kind.lower()} {name[:80]} cannot be read: {error}") from error
    row = [None if value is None else value.decode("utf-8", "surrogateescape") for value in row]
    text, mode, zone, character_set, collation = (None if at is None else row[at] for at in _COLUMNS[kind])
    text = _without_definer(text or "", f"{kind.lower()} {name[:80]}")
    return StoredObject(kind, name, text, mode or "", zone or "SYSTEM", character_set, collation)


def _without_definer(text, what):
    text, count = _DEFINER.subn(r"\1", text)
    if not count:
        raise _unmovable(f"{what} is not written as views and triggers are")
    return text


def _routines(database):
    """Of the server's own table: whoever did not make a routine may not see it."""
    rows = sql.root().rows(
        "SELECT type, name, aggregate, param_list, returns, sql_data_access, is_deterministic, security_type, "
        "comment, body, sql_mode, character_set_client, collation_connection FROM mysql.proc "
        f"WHERE db = {literal(database)} ORDER BY type, name"
    )
    return [_routine(row) for row in rows]


def _routine(row):
    kind, name, aggregate, parameters, returns, access, deterministic, security, comment, body = row[:10]
    mode, character_set, collation = row[10:]
    words = ["CREATE", "AGGREGATE" if aggregate == "GROUP" else "", f"{kind} {identifier(name)}({parameters})"]
    answers = "RETURN" if "ORACLE" in mode.split(",") else "RETURNS"
    words.append(f"{answers} {returns}" if kind == "FUNCTION" else "")
    words.append("" if access == "CONTAINS_SQL" else access.replace("_", " "))
    words.append("DETERMINISTIC" if deterministic == "YES" else "")
    words.append("SQL SECURITY INVOKER" if security == "INVOKER" else "")
    words.append(f"COMMENT {_text(comment, mode)}" if comment else "")
    text = " ".join(word for word in words if word)
    return StoredObject(kind, name, f"{text}\n{body}", mode, "SYSTEM", character_set, collation)


def _text(value, mode):
    """A comment, which a statement takes in quotes only."""
    value = value.replace("'", "''")
    return f"'{value}'" if "NO_BACKSLASH_ESCAPES" in mode else "'" + value.replace("\\", "\\\\") + "'"


def _refuse_too_much(database):
    schema = literal(database)
    for table in ("proc", "event"):
        size = sql.root().value(f"SELECT COALESCE(SUM(LENGTH(body)), 0) FROM mysql.{table} WHERE db = {schema}")
        if int(size) > MOST_BYTES:
            raise _too_much(database)


# At rest


def kept(database):
    """Those that ``keeping`` noted in a database; none where nothing was noted."""
    if KEPT_TABLE not in sql.tables(database):
        return StoredObjects(database)
    text = sql.within(database).value(f"SELECT LEFT(texts, {MOST_KEPT}) FROM {qualified(database, KEPT_TABLE)} LIMIT 1")
    return StoredObjects.loaded(text or "")


def unpacked(database):
    """The same, and the note goes: it is none of the site's tables."""
    found = kept(database)
    sql.within(database).say(f"DROP TABLE IF EXISTS {qualified(database, KEPT_TABLE)}")
    return found


def keeping(found, database=None):
    """Statements that note them: in ``database``, or in the one that is in use."""
    table = qualified(database, KEPT_TABLE) if database else identifier(KEPT_TABLE)
    return [
        f"CREATE TABLE {table} (texts LONGTEXT CHARACTER SET ascii) ENGINE=InnoDB",
        f"INSERT INTO {table} VALUES ({literal(found.dumped().encode('ascii'))})",
    ]


def _unmovable(what):
    return Failure(f"{what}. Remove or correct what is named, and try again.", trueup_code=UNMOVABLE)


def _too_much(database):
    most = f"{MOST} views, triggers and routines, or {MOST_BYTES >> 20} MB of them"
    return _unmovable(f"Database {database} has more than {most}")
