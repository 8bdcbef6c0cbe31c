# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What an environment had in common with its source when it was cloned: a digest of each row and of each file.

A row's digest is of its values with the environment's own address taken out, so that it says the same of a copy at
another address. The file is gzip JSON, one object a line: first ``{"format", "content"}``, then ``{"table", "rows"}``
for each table and ``{"files"}``; docs/drift.md tells it to people. In format 1 addresses were taken out of serialized
data and text alone; what compares with it does so, too, or every value with more layers would count as changed.
"""

from __future__ import annotations

import binascii
import gzip
import hashlib
import json
import os

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.dump import too_large
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal, qualified
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

FORMAT = 2
UNLAYERED = 1
"""The first format: digests are of all columns, and values were not read in layers."""
PLACE = "http://trueup.invalid"
"""Stands for the environment's own address in what is digested."""
DIRECTORY = "/var/www/sites/trueup.invalid"
"""And for its own directory."""
BLOCK = 1 << 20
IDENTITY = {"wp_options": ("option_name",), "wp_wc_tax_rate_classes": ("slug",)}
"""What a row is known by, where that isn't its primary key: an option's number differs between environments."""
LONGEST_KEY = 4096
"""Bytes that a row is known by: more than any index takes, which an option's name need not have."""
UNCOMPARED = {"wp_posts": ("guid",)}
"""Columns that are no part of what a row says: a guid keeps the address of where a post was made, on both sides."""
OURS = frozenset({"mu-plugins/trueup.php", "object-cache.php"})
SKIPPED = frozenset({"uploads", "cache", "upgrade", "upgrade-temp-backup"})


class Shape:
    """A table's columns, and which of them identify a row."""

    def __init__(self, name, columns, primary, engine):
        self.name = name
        known = set(IDENTITY.get(name, ())) <= set(columns)
        self.key = IDENTITY.get(name, primary) if known else primary
        surrogate = set(primary) - set(self.key)
        self.columns = tuple(column for column in columns if column not in surrogate)
        self.engine = engine
        self.whole = False
        """Whether every column is digested, as in a baseline of the first format."""

    @property
    def digested(self):
        return [one for one in self.columns if self.whole or one not in UNCOMPARED.get(self.name, ())]


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
    return _hex(shape.digested, alias)


def rows(database, shape, normal):
    """``{key: digest}`` of a table's rows. ``normal``, a Rewriter, takes the address out of a value.

    Where a row does not have it, the server digests it itself: the values of a large table need not come here.
    """
    values = raw(shape)
    columns = ", ".join(f"CAST(t.{identifier(column)} AS BINARY)" for column in shape.digested)
    sought = " OR ".join(f"LOCATE({literal(needle)}, CONCAT_WS(' ', {columns})) > 0" for needle in normal.needles)
    query = (
        f"SELECT LEFT({_hex(shape.key, 't')}, {2 * LONGEST_KEY + 1}), "
        f"IF({sought}, {values}, "
        f"CONCAT('=', SHA1({values}))) FROM {qualified(database, shape.name)} t"
    )
    answer = sql.within(database).stream(query)
    found = {}
    for key, value in answer:
        if key is None or len(key) > 2 * LONGEST_KEY:
            raise Failure(
                f"A row of table {shape.name[:80]} of {database} is known by more than {LONGEST_KEY} bytes, so nothing "
                "is compared with it. Remove it, and make its columns what WordPress makes them.",
                trueup_code=sql.UNUSABLE,
            )
        if value is None:
            # The server answers nothing that is longer than what it takes.
            raise too_large(database, shape.name)
        found[_key(key.decode("ascii"))] = _digest(value, normal)
        del value
    return found


def database(name, normal, only=lambda _table: True, *, layered=True):
    """``{table: {key: digest}}`` of the tables that ``only`` wants. ``layered``: False as in the first format."""
    found = {table: shape for table, shape in shapes(name).items() if only(table)}
    for shape in found.values():
        shape.whole = not layered
    return {table: rows(name, shape, normal) for table, shape in found.items()}


def files(root):
    """``{path: sha256}`` of a wp-content: no uploads, nothing that caches keep, nothing that Trueup puts there."""
    with paths.at(root) as (tree, name):
        return {path: found for path, found in tree.digests(name, SKIPPED) if path not in OURS}


def path(layout, content_id):
    return f"{layout.site}/baseline/{content_id}.jsonl.gz"


def save(layout, content_id, tables, tree, *, layered=True):
    """Write the baseline of a content; it appears whole."""
    lines = [{"format": FORMAT if layered else UNLAYERED, "content": content_id}]
    lines += [{"table": table, "rows": tables[table]} for table in sorted(tables)]
    lines.append({"files": tree})
    text = "".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines)
    place = path(layout, content_id)
    paths.directory(os.path.dirname(place), 0o700)
    write_durably(place, gzip.compress(text.encode("utf-8", "surrogateescape"), 6, mtime=0), 0o600)


def load(layout, content_id):
    """``(tables, files, layered)`` as they were saved; None where nothing was."""
    try:
        with gzip.open(path(layout, content_id), "rt", encoding="utf-8", errors="surrogateescape") as file:
            lines = [json.loads(line) for line in file]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError) as error:
        place = path(layout, content_id)
        raise Failure(f"Baseline {place} cannot be read ({error}). Clone the environment anew.") from error
    if not lines or lines[0].get("format") not in (FORMAT, UNLAYERED):
        raise Failure(f"Baseline {path(layout, content_id)} has another format. Clone the environment anew.")
    tables = {line["table"]: line["rows"] for line in lines if "table" in line}
    files = next((line["files"] for line in lines if "files" in line), {})
    return tables, files, lines[0]["format"] == FORMAT


def _hex(columns, alias):
    return f"CONCAT_WS(',', {', '.join(_column(column, alias) for column in columns)})"


def _column(column, alias):
    return f"IFNULL(HEX(CAST({alias}.{identifier(column)} AS BINARY)), '-')"


def _key(text):
    return ",".join(bytes.fromhex(part).decode("utf-8", "backslashreplace") for part in text.split(","))


def _digest(value, normal):
    """Of what the server answers for a row, in pieces: it may be large."""
    if value.startswith(b"="):
        return value[1:21].decode("ascii").lower()
    digest, view, at = hashlib.sha1(), memoryview(value), 0
    while True:
        end = value.find(b",", at)
        field = view[at : len(value) if end < 0 else end]
        told = memoryview(b"" if field == b"-" else normal(binascii.unhexlify(field)))
        digest.update(b"-" if field == b"-" else b"")
        for start in range(0, len(told), BLOCK):
            digest.update(binascii.hexlify(told[start : start + BLOCK]).upper())
        if end < 0:
            return digest.hexdigest()[:20]
        digest.update(b",")
        at = end + 1
