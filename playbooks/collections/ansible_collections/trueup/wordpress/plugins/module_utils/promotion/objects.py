# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""To which pages, products, menus and terms the rows belong that one side changed, by name.

Whoever writes to a site's tables has a say in all that is read here: a table that is not as WordPress makes it is told
as a table, and no answer is read to an end that it does not have. Orders, customers, users and comments are counted and
never named: they are people's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal, literals, qualified

NAMED = 20
"""Objects of a kind that are named; all are counted."""
AT_ONCE = 5000
MOST_META = 20_000
LONGEST = 200
"""Characters of a name."""
SHOWN_TEXT = 1 << 16
"""Bytes of a post's text in which a change is looked for."""

POSTS = {
    "post": "post",
    "page": "page",
    "product": "product",
    "product_variation": "product",
    "attachment": "attachment",
    "nav_menu_item": "menu",
    "wp_navigation": "menu",
    "wp_template": "template",
    "wp_template_part": "template",
    "wp_global_styles": "template",
    "custom_css": "template",
}
"""Kinds by post type; any other is C(content)."""
ORDERS = re.compile(r"shop_order.*|shop_subscription|wc_order.*")
NO_OBJECTS = frozenset({"revision", "customize_changeset", "oembed_cache"})
"""Post types that come along with an edit, or with none."""
NO_TERMS = frozenset({"product_type", "product_visibility", "post_format", "wp_theme", "action-group", "link_category"})
NO_EDIT = re.compile(r"_edit_lock|_edit_last|_encloseme|_pingme|_oembed_.*|product_count_.*")
"""Keys that WordPress writes because somebody looked at a post, or counted it."""
NO_USER = re.compile(r"session_tokens|wc_last_active|last_activity|_woocommerce_.*|.*community-events-location")
META = {
    "_price": "price",
    "_regular_price": "price",
    "_sale_price": "sale price",
    "_stock": "stock",
    "_stock_status": "stock",
    "_sku": "SKU",
    "_thumbnail_id": "image",
    "_product_image_gallery": "image",
    "_wp_page_template": "template",
    "_elementor_data": "text",
}
COLUMNS = {
    "post_title": "title",
    "post_status": "status",
    "post_name": "slug",
    "post_parent": "parent",
    "post_excerpt": "excerpt",
    "post_content": "text",
}
TEXTS = ("post_excerpt", "post_content")

_WORD = "LEFT({}, 64)"
"""Of a column that WordPress keeps short, and a site may have made long."""
_WHAT = f"ID, {_WORD.format('post_type')}, {_WORD.format('post_status')}, LEFT(post_title, {LONGEST})"

TABLES = frozenset(
    {
        *("wp_posts", "wp_postmeta", "wp_term_relationships", "wp_terms", "wp_term_taxonomy", "wp_termmeta"),
        *("wp_users", "wp_usermeta", "wp_comments", "wp_commentmeta", "wp_wc_orders"),
    }
)
"""Those whose rows are told as objects."""


@dataclass
class Objects:
    """All of a kind: how many, and the first with their names."""

    kind: str
    count: int = 0
    named: list = field(default_factory=list)
    """``{number, name, type, change, details}``"""


@dataclass(frozen=True)
class Half:
    """One side's database, as far as the comparison saw it."""

    database: str
    tables: frozenset
    normal: object
    """Takes the side's address out of a value."""


class Changed:
    """What one side made of content since the baseline.

    ``rows``: ``{table: {key: change}}``, a change being ``added``, ``changed`` or ``removed``. ``here`` is the Half
    that made it, ``there`` the other one, in which what is gone may still be found; ``moved_on``: ``{table: keys}``
    that the other one changed, too.
    """

    def __init__(self, here, there, rows, moved_on):
        self.here = here
        self.there = there
        self.rows = rows
        self.moved_on = moved_on
        self._found = {}
        self._orders_among_posts = set()

    def objects(self):
        """The Objects by kind, and the tables whose rows could not be told so."""
        untold = {table for table in TABLES & self.rows.keys() if any(not _whole(key) for key in self.rows[table])}
        untold.discard("wp_term_relationships")
        menus, found = set(), {}
        for tables, tell in (
            (("wp_posts", "wp_postmeta", "wp_term_relationships"), lambda: menus.update(self._posts())),
            (("wp_terms", "wp_term_taxonomy", "wp_termmeta"), lambda: self._terms(menus)),
            (("wp_users", "wp_usermeta"), lambda: self._counted("user", "wp_users", "wp_usermeta", "user_id")),
            (("wp_comments", "wp_commentmeta"), lambda: self._counted("comment", "wp_comments", "wp_commentmeta")),
            (("wp_wc_orders",), self._orders),
        ):
            self._found = {}
            try:
                tell()
            except (sql.SqlError, _Unlike, ValueError):
                untold |= set(tables) & self.rows.keys()
                continue
            for kind, one in self._found.items():
                both = found.setdefault(kind, Objects(kind))
                both.count += one.count
                both.named += one.named[: NAMED - len(both.named)]
        return found, untold

    def _add(self, kind, count=1):
        found = self._found.setdefault(kind, Objects(kind))
        found.count += count
        return found

    def _posts(self):
        """Tell posts by kind; the numbers of the menus whose items changed."""
        own = self._numbers("wp_posts")
        owners = set(own) | self._owners("wp_postmeta", "meta_id", "post_id", NO_EDIT)
        related = self._related()
        items, gone = set(), set()
        for number, kind, status, title in self._each("wp_posts", "ID", owners | related, _WHAT):
            if kind is None or kind in NO_OBJECTS or status == "auto-draft":
                continue
            if kind == "nav_menu_item":
                (gone if own.get(int(number)) == "removed" else items).add(int(number))
                continue
            if ORDERS.fullmatch(kind):
                self._orders_among_posts.add(int(number))
                continue
            found = self._add(POSTS.get(kind, "content"))
            if len(found.named) < NAMED:
                change = own.get(int(number), "changed")
                told = {"number": int(number), "name": title or "", "type": kind, "change": change}
                found.named.append({**told, "details": ["terms"] if int(number) in related else []})
        for found in self._found.values():
            self._say_what(found.named, own)
        return self._menus_of(self.here, items) | self._menus_of(self.there, gone)

    def _say_what(self, named, own):
        """Which parts of these posts changed."""
        by_number = {one["number"]: one for one in named if one["change"] == "changed"}
        if not by_number:
            return
        changed = self._numbers("wp_postmeta")
        if changed:
            rows = self._session(self.here, "wp_postmeta").few(
                f"SELECT meta_id, post_id, {_WORD.format('meta_key')} "
                f"FROM {qualified(self.here.database, 'wp_postmeta')} WHERE post_id IN ({_listed(by_number)})",
                MOST_META,
            )
            for number, post, key in rows:
                if int(number) in changed and not NO_EDIT.fullmatch(key or ""):
                    by_number[int(post)]["details"].append(META.get(key, key or ""))
        moved_on = self.moved_on.get("wp_posts", ())
        alone = [number for number in by_number if number in own and str(number) not in moved_on]
        here, there = (self._columns(half, alone) for half in (self.here, self.there))
        for number in alone:
            one, other = here.get(number, {}), there.get(number, {})
            parts = [word for column, word in COLUMNS.items() if one.get(column) != other.get(column)]
            by_number[number]["details"] += parts or ["text"]

    def _columns(self, half, numbers):
        if not numbers:
            return {}
        columns = ", ".join(f"LEFT(CAST({identifier(one)} AS BINARY), {SHOWN_TEXT})" for one in COLUMNS)
        query = f"SELECT ID, {columns} FROM {qualified(half.database, 'wp_posts')} WHERE ID IN ({_listed(numbers)})"
        found = {}
        for number, *values in self._session(half, "wp_posts").stream(query):
            told = dict(zip(COLUMNS, values))  # noqa: B905 (not in Python 3.9)
            found[int(number)] = {
                column: half.normal(value or b"") if column in TEXTS else value for column, value in told.items()
            }
        return found

    def _related(self):
        """Numbers of posts whose terms changed; a link has a number of its own, and its own taxonomy."""
        pairs = [key.split(",") for key in self.rows.get("wp_term_relationships", ())]
        pairs = [(int(one[0]), int(one[1])) for one in pairs if len(one) == 2 and all(map(_whole, one))]
        kinds = self._taxonomies({taxonomy for _, taxonomy in pairs})
        return {number for number, taxonomy in pairs if kinds.get(taxonomy) not in (None, "link_category")}

    def _taxonomies(self, numbers):
        rows = self._each(
            "wp_term_taxonomy", "term_taxonomy_id", numbers, f"term_taxonomy_id, {_WORD.format('taxonomy')}"
        )
        return {int(number): kind for number, kind in rows}

    def _menus_of(self, half, items):
        if not items:
            return set()
        session, found = self._session(half, "wp_term_relationships", "wp_term_taxonomy"), set()
        related, taxonomy = (qualified(half.database, table) for table in ("wp_term_relationships", "wp_term_taxonomy"))
        for part in _parts(items):
            rows = session.rows(
                f"SELECT DISTINCT x.term_id FROM {related} r JOIN {taxonomy} x USING (term_taxonomy_id) "
                f"WHERE x.taxonomy = {literal('nav_menu')} AND r.object_id IN ({_listed(part)})"
            )
            found |= {int(number) for (number,) in rows}
        return found

    def _terms(self, menus):
        own = self._numbers("wp_terms")
        numbers = set(own) | menus | self._retold() | self._owners("wp_termmeta", "meta_id", "term_id", NO_EDIT)
        kinds = {}
        for half in (self.there, self.here) if numbers else ():
            session = self._session(half, "wp_term_taxonomy")
            query = f"SELECT term_id, {_WORD.format('taxonomy')} FROM {qualified(half.database, 'wp_term_taxonomy')}"
            for part in _parts(numbers):
                rows = session.rows(f"{query} WHERE term_id IN ({_listed(part)})")
                kinds.update((int(number), kind) for number, kind in rows)
        for number, name in self._each("wp_terms", "term_id", numbers, f"term_id, LEFT(name, {LONGEST})"):
            kind = kinds.get(int(number)) or ""
            if kind in NO_TERMS:
                continue
            found = self._add("menu" if kind == "nav_menu" else "term")
            if len(found.named) < NAMED:
                change = own.get(int(number), "changed")
                told = {"number": int(number), "name": name or "", "type": kind, "change": change}
                found.named.append({**told, "details": []})

    def _retold(self):
        """Terms of whose row in wp_term_taxonomy more changed than how often they are used."""
        changed = self._numbers("wp_term_taxonomy")
        columns = f"term_taxonomy_id, term_id, {_WORD.format('taxonomy')}, MD5(description), parent"
        numbers = {number for number, change in changed.items() if change == "changed"}
        sides = []
        for half in (self.here, self.there):
            rows = (row for part in _parts(numbers) for row in self._of(half, "wp_term_taxonomy", part, columns))
            sides.append({int(row[0]): row[1:] for row in rows})
        numbers = {one for one in changed if one not in sides[0] or sides[0][one] != sides[1].get(one)}
        rows = self._each("wp_term_taxonomy", "term_taxonomy_id", numbers, "term_taxonomy_id, term_id")
        return {int(term) for _, term in rows}

    def _of(self, half, table, numbers, columns):
        return self._session(half, table).rows(
            f"SELECT {columns} FROM {qualified(half.database, table)} WHERE term_taxonomy_id IN ({_listed(numbers)})"
        )

    def _counted(self, kind, table, meta, owner="comment_id"):
        number = "umeta_id" if kind == "user" else "meta_id"
        numbers = set(self._numbers(table)) | self._owners(meta, number, owner, NO_USER)
        if numbers:
            self._add(kind, len(numbers))

    def _orders(self):
        """Of both kinds of storage: an order has the same number in both."""
        numbers = {*self._orders_among_posts, *self._numbers("wp_wc_orders")}
        if numbers:
            self._add("order", len(numbers))

    def _numbers(self, table):
        """``{number: change}`` of a table whose key is a number."""
        return {int(key): change for key, change in self.rows.get(table, {}).items() if _whole(key)}

    def _owners(self, table, key, owner, left_out):
        """To what rows of metadata belong."""
        rows = self._each(
            table, key, self._numbers(table), f"{identifier(key)}, {identifier(owner)}, {_WORD.format('meta_key')}"
        )
        return {int(number) for _, number, name in rows if number and not left_out.fullmatch(name or "")}

    def _each(self, table, key, numbers, columns):
        """Rows by number, the highest first; those that are gone as the other side has them."""
        if numbers and table not in self.here.tables:
            raise _Unlike
        for part in _parts(numbers):
            left = set(part)
            for half in (self.here, self.there):
                if not left or table not in half.tables:
                    continue
                for row in self._session(half, table).rows(
                    f"SELECT {columns} FROM {qualified(half.database, table)} "
                    f"WHERE {identifier(key)} IN ({_listed(left)}) ORDER BY {identifier(key)} DESC"
                ):
                    left.discard(int(row[0]))
                    yield row

    def _session(self, half, *tables):
        if not half.tables.issuperset(tables):
            raise _Unlike
        return sql.within(half.database)


class _Unlike(Exception):
    """A table is missing that WordPress has."""


def names_of(database, table, key, name, keys):
    """``{key: name}`` of these rows of a table that is not told as objects."""
    rows = sql.within(database).rows(
        f"SELECT {identifier(key)}, LEFT({identifier(name)}, {LONGEST}) FROM {qualified(database, table)} "
        f"WHERE {identifier(key)} IN ({literals(keys)})"
    )
    return {number: told or "" for number, told in rows}


def _whole(key):
    return key.isascii() and key.isdigit() and len(key) < 20


def _parts(numbers):
    ordered = sorted(numbers, reverse=True)
    return [ordered[start : start + AT_ONCE] for start in range(0, len(ordered), AT_ONCE)]


def _listed(numbers):
    return ", ".join(str(int(number)) for number in numbers)
