# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A text replaced in a site's tables while the site is at work, or only looked for; and taken back.

Each row is read once and changed only while it says what it said: what somebody changed meanwhile is read again. So a
new text that has the former one in it goes in once. The way back is on disk before a row is changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re

from ansible_collections.trueup.wordpress.plugins.module_utils import room, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import rewrite_tables
from ansible_collections.trueup.wordpress.plugins.module_utils.content.charsets import (
    CODECS,
    NOT_HELD,
    NOT_READ,
    UNREAD,
    UTF8,
    StoredRewriter,
)
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite import BINARY, excerpt
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite_tables import (
    NOT_TAKEN,
    ROUNDS,
    TOO_LONG,
    Changes,
    InUse,
    Row,
    shown,
)
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite_text import TextRewriter, refusal
from ansible_collections.trueup.wordpress.plugins.module_utils.content.snapshot import DATABASES
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.presets import COMMERCE
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal

GROUPS = {
    "content": ("posts", "postmeta", "terms", "termmeta", "term_taxonomy", "links"),
    "comments": ("comments", "commentmeta"),
    "users": ("users", "usermeta"),
    "settings": ("options", "sitemeta"),
    "commerce": COMMERCE,
}
"""Tables by what they are about: patterns of names without the prefix."""
PREFIX = "wp_"
REFUSED, NO_TABLE, NO_ROOM = "SEARCH_REFUSED", "SEARCH_TABLE_MISSING", "SEARCH_NO_ROOM"
SPARE = 256 << 20
"""Bytes of the disk that the way back leaves free."""
EXAMPLES = 3
"""Of each table."""

SECRET = "it is a password or a key"
NAMED = "code knows it by this name"
OWN = "it is the environment's own, and declared elsewhere"
NO_KEY = "the table has no primary key by which its rows are known"
MEANWHILE = "somebody changed it again and again"

_SECRETS = ("user_pass", "user_activation_key", "activation_key", "post_password", "session_key", "order_key")
_SECRETS += ("token", "consumer_key", "consumer_secret", "truncated_key", "secret", "cart_hash")
_NAMES = ("option_name", "meta_key", "user_login", "user_nicename", "post_name", "post_type", "post_status", "slug")
_NAMES += ("taxonomy", "comment_type", "comment_approved", "comment_status", "ping_status", "autoload", "status")
_NAMES += ("post_mime_type", "type", "hook", "order_item_type", "link_visible", "permalink_hash")
_OWN_OPTIONS = re.compile(
    rb"siteurl|home|active_plugins|template|stylesheet|cron|uninstall_plugins|recently_activated|upload_path"
    rb"|upload_url_path|db_version|initial_db_version|WPLANG|permalink_structure|rewrite_rules|recovery_keys"
    rb"|(?:auth|secure_auth|logged_in|nonce)_(?:key|salt)|secret_key|trueup_.*|user_roles|wp_user_roles"
)
_OWN_META = re.compile(rb"session_tokens|_application_passwords|wp_capabilities|_wp_page_template|_edit_lock")
_PLAIN_BYTES = frozenset(("NULL", "binary"))


class Request:
    """What is to be replaced by what, and where. ``tables`` with or without the prefix; ``groups``: see ``GROUPS``;
    without any of both, all. ``guid``: also in the column of this name.

    Raises:
        Failure: it makes no sense.
    """

    def __init__(self, search, replace, tables=(), groups=(), *, guid=False):
        why = refusal(search, replace)
        if why:
            raise Failure(why, trueup_code=REFUSED)
        unknown = sorted({*groups} - {*GROUPS})
        if unknown:
            raise Failure(f"No group is named {shown(unknown[0])}: {', '.join(GROUPS)}.", trueup_code=REFUSED)
        self.search, self.replace = search, replace
        self.tables, self.groups = tuple(tables), tuple(groups)
        self.guid = guid
        self._rewriters = {}

    @classmethod
    def of(cls, declared):
        """Of content as it is declared."""
        where = (declared.get("tables") or (), declared.get("groups") or ())
        return cls(declared["search"], declared["replace"], *where, guid=bool(declared.get("guid")))

    def chosen(self, database):
        """The tables of the database that it is about, settings last."""
        present = [name for name in sql.tables(database) if not name.startswith("trueup_")]
        if not self.tables and not self.groups:
            wanted = set(present)
        else:
            wanted = {name for name in present if self._is_in_a_group(name)}
            for name in self.tables:
                found = [one for one in (name, PREFIX + name) if one in present]
                if not found:
                    raise Failure(f"The database has no table {shown(name)}.", trueup_code=NO_TABLE)
                wanted.add(found[0])
        return sorted(wanted, key=lambda name: (name.endswith("options"), name))

    def _is_in_a_group(self, table):
        bare = table[len(PREFIX) :] if table.startswith(PREFIX) else None
        return bare and any(re.fullmatch(one, bare) for group in self.groups for one in GROUPS[group])

    def rewriter(self, charset):
        """What reads a column of this character set; None where none can, or it cannot hold the new text."""
        if charset not in self._rewriters:
            self._rewriters[charset] = self._rewriter(charset)
        return self._rewriters[charset]

    def _rewriter(self, charset):
        is_narrow = charset in ("utf8mb3", "utf8") and max(self.replace, default="") > "\uffff"
        if charset in UNREAD or is_narrow:
            return None
        if charset in UTF8:
            return TextRewriter(self.search, self.replace)
        if charset in CODECS:
            return StoredRewriter(TextRewriter(self.search, self.replace), charset)
        # All others have ASCII in them as it is.
        with contextlib.suppress(UnicodeEncodeError):
            return TextRewriter(self.search, self.replace, "ascii")
        return None

    def may_be_in(self, charset):
        """Whether a column of this character set can hold the text that is looked for."""
        return charset not in ("utf8mb3", "utf8") or max(self.search) <= "\uffff"


class Found(Changes):
    """``counts``: values by table; ``examples``: ``[{column, before, after}]`` by table; ``left``: what stays."""

    MOST_TABLES = 200

    def __init__(self):
        super().__init__()
        self.examples = {}

    def note(self, table, row):
        self.counts[table] = self.counts.get(table, 0) + len(row.sets)
        told = self.examples.setdefault(table, [])
        for column, old, new in row.sets[: EXAMPLES - len(told)]:
            at = _alike(old, new)
            told.append({"column": shown(column), "before": excerpt(old, at), "after": excerpt(new, at)})

    def told(self):
        """As data: ``{count, tables: [{table, count, examples}], left, left_more}``, the most frequent first."""
        tables = [
            {"table": shown(name), "count": count, "examples": self.examples.get(name, [])}
            for name, count in sorted(self.counts.items())
            if count
        ]
        return {
            "count": sum(self.counts.values()),
            "tables": sorted(tables, key=lambda one: -one["count"])[: self.MOST_TABLES],
            "left": self.left,
            "left_more": self.more,
        }


def _alike(old, new):
    """How many bytes two values begin with alike."""
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        if old[:middle] == new[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def look(database, request):
    """What ``replace`` would change, as Found. Nothing is written."""
    found = Found()
    for name in request.chosen(database):
        table = _Table(database, name, request)
        for row in table.rows(found):
            found.note(name, row)
    return found


def replace(database, request, undo, content_id):
    """Replace: Found. ``undo``: the file of the way back, which names ``content_id``."""
    names = request.chosen(database)
    _begin(undo, content_id)
    found = Found()
    with _Exact(database, undo) as cells:
        for name in names:
            _Writing(_Table(database, name, request), cells, found).run()
    return found


def unfinished(undo):
    """The content for which a file of the way back was written; None where there is no file, or nothing in it."""
    try:
        with open(undo, encoding="ascii") as file:
            first = file.readline()
        return json.loads(first)["content"] if first.endswith("}\n") else ""
    except FileNotFoundError:
        return None


take_back = rewrite_tables.take_back


def forget(undo):
    """There is no way back any more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(undo)


def _begin(undo, content_id):
    handle = os.open(undo, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(json.dumps({"content": content_id}) + "\n")
        file.flush()
        os.fsync(file.fileno())


class _Table(rewrite_tables.Table):
    """A table as a text is replaced in it: ``rewriters`` by column; ``kept``: columns that stay, and why."""

    def __init__(self, database, name, request):
        super().__init__(database, name)
        found = sql.within(database).rows(
            "SELECT column_name, IFNULL(character_set_name, 'NULL'), IFNULL(character_maximum_length, 0), "
            "IFNULL(character_octet_length, 0) FROM information_schema.columns "
            f"WHERE table_schema = {literal(database)} AND table_name = {literal(name)}"
        )
        self.charsets = {column: charset for column, charset, *_ in found}
        if request.guid:
            self.columns |= {one: (int(most), int(size)) for one, _, most, size in found if one == "guid" and int(size)}
        engine = sql.within(database).value(
            "SELECT engine FROM information_schema.tables "
            f"WHERE table_schema = {literal(database)} AND table_name = {literal(name)}"
        )
        self.is_transactional = engine == "InnoDB"
        self.rewriters = {one: request.rewriter(self.charsets[one]) for one in [*self.columns, *self.key_texts]}
        self.unable = [
            one for one in self.columns if self.rewriters[one] is None and request.may_be_in(self.charsets[one])
        ]
        self.columns = {one: size for one, size in self.columns.items() if self.rewriters[one]}
        self.kept = {one: SECRET if one in _SECRETS else NAMED for one in self.columns if one in _SECRETS + _NAMES}

    def condition(self):
        """SQL of rows that have the text in them somewhere; None where no column can."""
        tests = [
            f"LOCATE({literal(needle)}, CAST({identifier(column)} AS BINARY))"
            for column, rewriter in self.rewriters.items()
            if rewriter is not None
            for needle in rewriter.needles
        ]
        return " OR ".join(tests) or None

    def select(self, condition, *, keys_alone=False):
        names = [name for name, _ in self.key] + ([] if keys_alone else list(self.columns))
        return f"SELECT {', '.join(map(identifier, names))} FROM {self.place} WHERE {condition}"

    def rows(self, found):
        """The Rows that change, each with its key; what stays as it is goes into ``found``."""
        for column in self.unable:
            why = NOT_READ if self.charsets[column] in UNREAD else NOT_HELD
            found.leave(self.name, column, why, "")
        condition = self.condition()
        if condition is None or not self.columns:
            return
        if not self.key:
            count = sql.within(self.database).value(f"SELECT COUNT(*) FROM {self.place} WHERE {condition}")
            if int(count):
                found.leave(self.name, "", NO_KEY, "", int(count))
            return
        for cells in self._cells(condition):
            row = self.changed(cells, found)
            if row.sets:
                yield row

    def _cells(self, condition):
        read = "SET SESSION character_set_results = NULL"
        if self.is_transactional:
            yield from sql.within(self.database).stream(self.select(condition), read)
            return
        # Whoever reads such a table row by row keeps all others from writing to it, and us.
        keys = list(sql.within(self.database).stream(self.select(condition, keys_alone=True), read))
        for key in keys:
            yield from self.again(self.where(key))

    def again(self, where):
        """The row as it is by now: none, or one."""
        query = self.select(" AND ".join(where))
        return list(sql.within(self.database).stream(query, "SET SESSION character_set_results = NULL"))

    def where(self, key):
        return [
            f"{identifier(name)} = {int(cell)}" if number else rewrite_tables.says(name, cell)
            for (name, number), cell in zip(self.key, key)  # noqa: B905
        ]

    def changed(self, cells, found):
        """The Row of what changes in it."""
        key, values = cells[: len(self.key)], dict(zip(self.columns, cells[len(self.key) :]))  # noqa: B905
        own = self._own(values)
        sets = []
        for column, old in values.items():
            if old is None:
                continue
            reading = self.rewriters[column].read(old)
            kept = self.kept.get(column) or own
            if kept:
                if reading.value != old:
                    found.leave(self.name, column, kept, "" if kept in (SECRET, OWN) else excerpt(old))
                continue
            for reason, example in reading.left:
                found.leave(self.name, column, reason, example)
            if reading.value == old:
                continue
            if self.charsets[column] in _PLAIN_BYTES and not _is_text(old):
                found.leave(self.name, column, BINARY, excerpt(old))
            elif not self.holds(column, reading.value):
                found.leave(self.name, column, TOO_LONG, excerpt(old))
            else:
                sets.append((column, old, reading.value))
        for (name, number), cell in zip(self.key, key):  # noqa: B905
            rewriter = None if number else self.rewriters.get(name)
            if rewriter is not None and rewriter(cell) != cell:
                found.leave(self.name, name, rewrite_tables.HOLDS_KEY, excerpt(cell))
        return Row(self.where(key), [*sets, *rewrite_tables.permalink(values, sets)], self.timed)

    def _own(self, values):
        """Why a whole row stays as it is."""
        for column, pattern in (("option_name", _OWN_OPTIONS), ("meta_key", _OWN_META)):
            if values.get(column) and pattern.fullmatch(values[column]):
                return OWN
        return None


def _is_text(value):
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class _Writing:
    """One table's rows written, a batch at a time."""

    def __init__(self, table, cells, found):
        self.table = table
        self.cells = cells
        self.found = found

    def run(self):
        waiting, size = [], 0
        for row in self.table.rows(self.found):
            waiting.append(row)
            size += row.size
            if len(waiting) >= rewrite_tables.BATCH or size >= rewrite_tables.BATCH_BYTES:
                self._write(waiting)
                waiting, size = [], 0
        self._write(waiting)

    def _write(self, rows):
        for _ in range(ROUNDS):
            late = []
            for row, taken in zip(rows, self.cells.taken(self.table, rows)):  # noqa: B905
                if taken is None:
                    for column, old, _new in row.sets:
                        self.found.leave(self.table.name, column, NOT_TAKEN, excerpt(old))
                elif taken:
                    self.found.note(self.table.name, row)
                else:
                    late += [self.table.changed(cells, self.found) for cells in self.table.again(row.where)]
            rows = [row for row in late if row.sets]
            if not rows:
                return
        for row in rows:
            for column, old, _new in row.sets:
                self.found.leave(self.table.name, column, MEANWHILE, excerpt(old))


class _Exact(InUse):
    """Changes rows of a site at work and knows of each whether it was changed."""

    def taken(self, table, rows):
        """Of each row: True; False where it says something else by now; None where the table does not take it."""
        if not rows:
            return []
        lines = [f"{json.dumps(row.back(table.place))}\n" for row in rows]
        self._refuse_without_room(sum(map(len, lines)), sum(row.size for row in rows))
        self.file.writelines(lines)
        self.file.flush()
        os.fsync(self.file.fileno())
        statements = [row.update_in_use(table.place) for row in rows]
        # What is sent again after a refusal must not have been done: elsewhere a ROLLBACK undoes nothing.
        together = 20 if table.is_transactional else 1
        found = []
        for start in range(0, len(statements), together):
            found += self._part(statements[start : start + together])
        return found

    def _refuse_without_room(self, back, values):
        """``back``, ``values``: bytes that a batch takes of the way back's disk and of the database's."""
        lack = room.lacking({os.path.dirname(self.undo): back, DATABASES: values}, SPARE)
        if lack:
            raise Failure(
                f"The next rows and the way back need {lack[0] >> 20} MiB of the node's disk, of which {SPARE >> 20} "
                f"stay free, and {lack[1] >> 20} MiB are free. Free some, or replace in fewer tables at once.",
                trueup_code=NO_ROOM,
            )

    def _part(self, statements):
        for attempt in range(ROUNDS):
            try:
                return self._transaction(statements)
            except sql.SqlError as error:
                if error.code in rewrite_tables.REFUSED:
                    if len(statements) == 1:
                        return [None]
                    return [one for statement in statements for one in self._part([statement])]
                if attempt + 1 == ROUNDS or error.code not in rewrite_tables.AGAIN:
                    raise
                if error.code == sql.LOCKED:
                    sql.end_prepared()
        return []

    def _transaction(self, statements):
        try:
            self.session.say("BEGIN")
            found = [self.session.changed(self.bounded(statement)) > 0 for statement in statements]
            self.session.say("COMMIT")
        except sql.SqlError:
            with contextlib.suppress(Failure):
                self.session.say("ROLLBACK")
            raise
        return found
