# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What an environment had in common with its source when it was cloned: a digest of each row and of each file.

A row's digest is of its values with the environment's own address taken out, so that it says the same of a copy at
another address. The file is gzip JSON, one object a line: first ``{"format", "content"}``, then ``{"table", "rows"}``
for each table and ``{"files"}``; docs/drift.md tells it to people.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal, qualified
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

FORMAT = 1
PLACE = "http://trueup.invalid"
"""Stands for the environment's own address in what is digested."""
IDENTITY = {"wp_options": ("option_name",)}
"""What a row is known by, where that isn't its primary key: an option's number differs between environments."""
OURS = frozenset({"mu-plugins/trueup.php", "object-cache.php"})
SKIPPED = frozenset({"uploads", "cache", "upgrade", "upgrade-temp-backup"})


class Shape:
    """A table's columns, and which of them identify a row."""

    def __init__(self, name, columns, primary, engine):
        self.name = name
        self.key = IDENTITY.get(name, primary)
        surrogate = set(primary) - set(self.key) if name in IDENTITY else set()
        self.columns = tuple(column for column in columns if column not in surrogate)
        self.engine = engine


def shapes(database):
    """The base tables of a database that have a key to tell their rows apart by; not Trueup's own."""
    rows = sql.within(database).rows(
        "SELECT c.table_name, c.column_name, c.column_key = 'PRI', t.engine FROM information_schema.columns c "
        "JOIN information_schema.tables t USING (table_schema, table_name) WHERE t.table_type = 'BASE TABLE' "
        f"AND c.table_schema = {literal(database)} AND c.table_name NOT LIKE 'trueup\\_%' "
        "AND c.extra NOT LIKE '%GENERATED%' ORDER BY c.table_name, c.ordinal_position"
    )
    found = {}
    for table, column, primary, engine in rows:
        columns, keys, _ = found.setdefault(table, ([], [], engine))
        columns.append(column)
        keys += [column] if primary == "1" else []
    made = (Shape(name, columns, tuple(keys), engine) for name, (columns, keys, engine) in found.items())
    return {shape.name: shape for shape in made if shape.key}


def raw(shape, alias="t"):
    """SQL for a row's values as one text that no two rows share, byte for byte."""
    return _hex(shape.columns, alias)


def rows(database, shape, normal, needle):
    """``{key: digest}`` of a table's rows. ``normal`` takes the address out of a value that has ``needle`` in it.

    Where a row has it not, the server digests it itself: the values of a large table need not come here.
    """
    values = raw(shape)
    columns = ", ".join(f"CAST(t.{identifier(column)} AS BINARY)" for column in shape.columns)
    query = (
        f"SELECT {_hex(shape.key, 't')}, "
        f"IF(LOCATE({literal(needle.encode())}, CONCAT_WS(' ', {columns})) > 0, {values}, "
        f"CONCAT('=', SHA1({values}))) FROM {qualified(database, shape.name)} t"
    )
    answer = sql.within(database).stream(query)
    return {_key(key.decode("ascii")): _digest(value.decode("ascii"), normal) for key, value in answer}


def database(name, normal, needle, only=lambda _table: True):
    """``{table: {key: digest}}`` of the tables that ``only`` wants."""
    return {table: rows(name, shape, normal, needle) for table, shape in shapes(name).items() if only(table)}


def files(root):
    """``{path: sha256}`` of a wp-content: no uploads, nothing that caches keep, nothing that Trueup puts there."""
    with paths.at(root) as (tree, name):
        return {path: found for path, found in tree.digests(name, SKIPPED) if path not in OURS}


def path(layout, content_id):
    return f"{layout.site}/baseline/{content_id}.jsonl.gz"


def save(layout, content_id, tables, tree):
    """Write the baseline of a content; it appears whole."""
    lines = [{"format": FORMAT, "content": content_id}]
    lines += [{"table": table, "rows": tables[table]} for table in sorted(tables)]
    lines.append({"files": tree})
    text = "".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines)
    place = path(layout, content_id)
    paths.directory(os.path.dirname(place), 0o700)
    write_durably(place, gzip.compress(text.encode("utf-8", "surrogateescape"), 6, mtime=0), 0o600)


def load(layout, content_id):
    """``(tables, files)`` as they were saved; None where nothing was."""
    try:
        with gzip.open(path(layout, content_id), "rt", encoding="utf-8", errors="surrogateescape") as file:
            lines = [json.loads(line) for line in file]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError) as error:
        place = path(layout, content_id)
        raise Failure(f"Baseline {place} cannot be read ({error}). Clone the environment anew.") from error
    if not lines or lines[0].get("format") != FORMAT:
        raise Failure(f"Baseline {path(layout, content_id)} has another format. Clone the environment anew.")
    tables = {line["table"]: line["rows"] for line in lines if "table" in line}
    return tables, next((line["files"] for line in lines if "files" in line), {})


def _hex(columns, alias):
    return f"CONCAT_WS(',', {', '.join(_column(column, alias) for column in columns)})"


def _column(column, alias):
    return f"IFNULL(HEX(CAST({alias}.{identifier(column)} AS BINARY)), '-')"


def _key(text):
    return ",".join(bytes.fromhex(part).decode("utf-8", "backslashreplace") for part in text.split(","))


def _digest(text, normal):
    if text.startswith("="):
        return text[1:21].lower()
    fields = [field if field == "-" else normal(bytes.fromhex(field)).hex().upper() for field in text.split(",")]
    return hashlib.sha1(",".join(fields).encode()).hexdigest()[:20]
