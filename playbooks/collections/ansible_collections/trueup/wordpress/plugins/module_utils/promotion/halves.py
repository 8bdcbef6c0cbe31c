# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What the halves of a pair are read from: rows of tables, options, and the tables that a plugin's code names.

A half that needs something answers ``{(table, key): {about}}``: what each row is about, as the class of a tax rate. One
that is needed answers ``{(table, key): {(about, member)}}``: what each row brings of it. A table or a column that is
not there has no rows. ``about`` says which are asked for, ``other`` is the target where the source is asked. Keys are
those of a comparison.
"""

from __future__ import annotations

import re
import stat
import unicodedata
from collections import namedtuple

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import presets
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literal, qualified
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

OPTIONS = "wp_options"
NO_COLUMN = 1054
MOST_VALUE = 1 << 20
"""Bytes that are read of an option."""
MOST_ROWS, MOST_BYTES, LONGEST = 250_000, 64 << 20, 255
"""Rows of a half and their bytes, and bytes of a value; what is not read could move without its other half."""
MOST_VALUES = 8 << 20
"""Bytes of all options of a half."""
LARGEST_FILE, MOST_CODE = 4 << 20, 512 << 20
"""Bytes of one file, and of all files of all plugins, in which names of tables are looked for."""
MOST_PLUGINS, MOST_TABLES = 200, 500
"""So many that became active, and so many tables that only the source has, are looked at."""
SHORTEST_STEM = 4
ENGINES = frozenset({"InnoDB", "Aria", "MyISAM"})
"""Those that keep a table's rows in this server, and nowhere else."""

_WORD = re.compile(rb"[0-9A-Za-z_]+")
_PLUGIN = re.compile(rb's:\d+:"([^"\0]{1,255}\.php)";')

Place = namedtuple("Place", "database content")
"""One environment: its database, and the directory wp-content that it serves."""


class Rows(namedtuple("Rows", "table query others", defaults=((),))):
    """Rows of ``table``: the query answers a row's key, what it is about and, where it is needed, a member of that.

    In the query ``{0}`` stands for the table, ``{1}`` and so on for ``others``.
    """

    __slots__ = ()

    def needs(self, place):
        found = {}
        for key, about, *_ in self._read(place):
            found.setdefault((self.table, key), set()).add(about)
        return found

    def brings(self, place, _about, _other):
        found = {}
        for key, about, member in self._read(place):
            found.setdefault((self.table, key), set()).add((about, member))
        return found

    def is_among(self, rows):
        return any(table == self.table for table, _ in rows)

    def _read(self, place):
        session, names = sql.within(place.database), (self.table, *self.others)
        if set(names) - set(sql.tables(place.database, f"AND table_name IN ({sql.literals(names)})")):
            return
        query = self.query.format(*(qualified(place.database, name) for name in names))
        try:
            for row in sql.bounded(session.stream(query), MOST_ROWS, MOST_BYTES, f"The rows of {self.table}"):
                if None not in row:
                    yield tuple(value[:LONGEST].decode("utf-8", "backslashreplace") for value in row)
        except sql.SqlError as error:
            if error.code != NO_COLUMN:
                raise


class Values(namedtuple("Values", "names read")):
    """Options whose names match a pattern; ``read(name, value)`` says what the value, in bytes, is about."""

    __slots__ = ()

    def needs(self, place):
        session = sql.within(place.database)
        sql.needed_table(session, place.database, OPTIONS)
        rows = session.stream(
            f"SELECT option_name, LEFT(option_value, {MOST_VALUE}) FROM {qualified(place.database, OPTIONS)} "
            f"WHERE option_name REGEXP {literal(f'^(?:{self.names})$')}"
        )
        rows = sql.bounded(rows, MOST_ROWS, MOST_VALUES, f"The options {self.names}")
        named = ((name.decode("utf-8", "backslashreplace"), value or b"") for name, value in rows)
        return {(OPTIONS, name): set(self.read(name, value)) for name, value in named}

    def brings(self, place, _about, _other):
        return {row: {(one, one) for one in about} for row, about in self.needs(place).items()}

    def is_among(self, rows):
        return any(table == OPTIONS and re.fullmatch(self.names, key) for table, key in rows)


class Tables:
    """Whole tables, each about the plugins whose code names it. None of them moves by itself."""

    __slots__ = ()

    def brings(self, place, about, other):
        """Those that ``other``, a Place, has none of, for the plugins ``about``; nothing where there is no other."""
        if not about or other is None:
            return {}
        # A view has a table's place, too.
        query = f"SELECT table_name FROM information_schema.tables WHERE table_schema = {literal(other.database)}"
        there = {name for (name,) in sql.root().rows(query)}
        besides = [name for name in sql.tables(place.database) if presets.bare(name) and name not in there]
        found = {}
        active = set(sorted(about)[:MOST_PLUGINS])
        for plugin, names in named_by(place.content, active, besides[:MOST_TABLES]).items():
            for name in names:
                found.setdefault((name, None), set()).add((plugin, name))
        return found

    def is_among(self, _rows):
        return False


def lines(_name, value):
    """Slugs of what an option lists, one a line, as WordPress makes them of titles."""
    for line in value.decode("utf-8", "replace").splitlines():
        plain = unicodedata.normalize("NFKD", line.strip()).encode("ascii", "ignore").decode().lower()
        slug = re.sub(r"-+", "-", re.sub(r"[\s_-]+", "-", re.sub(r"[^a-z0-9\s_-]", "", plain))).strip("-")
        if slug:
            yield slug


def plugins(_name, value):
    """Main files of the plugins that are active."""
    return {found.decode("utf-8", "backslashreplace") for found in _PLUGIN.findall(value)}


def named_by(content, active, tables):
    """``{plugin: tables}``: those of ``tables`` that each plugin's code names, or what their names begin with, or that
    are called as the plugin is.
    """
    found, left = {}, MOST_CODE
    folders = {plugin.partition("/")[0] for plugin in active} - {"", ".", ".."}
    for folder in sorted(folders):
        slug = (folder[: -len(".php")] if folder in active else folder).replace("-", "_").lower()
        own = {one for one in tables if f"{presets.bare(one)}_".lower().startswith(f"{slug}_")}
        sought = _Sought(one for one in tables if one not in own)
        for code in _code(f"{content}/plugins/{folder}") if sought else ():
            if (left := left - len(code) * sought.looks) < 0:
                break
            own.update(sought.said_in(code))
        found.update((plugin, own) for plugin in active if plugin.partition("/")[0] == folder)
    return found


def _said_as(name):
    """The table's name, and its beginnings up to an underscore, to which code adds the rest."""
    yield name
    for at in range(len(name) - 1, SHORTEST_STEM - 2, -1):
        if name[at] == "_":
            yield name[: at + 1]


class _Sought:
    """Tables whose names are looked for in code, as words of their own, with the prefix of tables or without.

    A site may have many, with many underscores: all that are words are found by one look at the code. ``looks``: how
    often each byte is looked at.
    """

    def __init__(self, tables):
        self._words, self._others = {}, []
        for table in tables:
            for said in _said_as(presets.bare(table)):
                text = said.encode("utf-8", "surrogateescape")
                if _WORD.fullmatch(text):
                    for word in (text, b"wp_" + text):
                        self._words.setdefault(word, set()).add(table)
                else:
                    alone = re.compile(rb"(?<![0-9A-Za-z_])(?:wp_)?" + re.escape(text) + rb"(?![0-9A-Za-z_])")
                    self._others.append((table, text, alone))
        self.looks = 1 + len(self._others)

    def __bool__(self):
        return bool(self._words or self._others)

    def said_in(self, code):
        found = set()
        for word in self._words.keys() & set(_WORD.findall(code)):
            found |= self._words[word]
        return found.union(table for table, text, alone in self._others if text in code and alone.search(code))


def _code(path):
    """The texts of a plugin's files of PHP. Links lead nowhere."""
    if (alone := paths.read(path, LARGEST_FILE)) is not None:
        yield alone
        return
    with paths.at(path) as (tree, name):
        files = [one for one, _, _, kind in tree.walk(name) if kind == stat.S_IFREG and one.endswith((".php", ".inc"))]
        for file in files:
            yield tree.read(f"{name}/{file}", LARGEST_FILE) or b""


def engines(database, tables):
    """``{table: engine}`` of base tables."""
    rows = sql.root().rows(
        "SELECT table_name, engine FROM information_schema.tables WHERE table_type = 'BASE TABLE' "
        f"AND table_schema = {literal(database)} AND table_name IN ({sql.literals(sorted(tables))})"
    )
    return dict(rows)
