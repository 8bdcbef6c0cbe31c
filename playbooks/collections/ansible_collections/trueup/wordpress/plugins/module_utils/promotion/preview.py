# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What a promotion moves, what it does not, and why, in the words of WordPress. It changes nothing.

All is counted by kind; the first of each kind are named, and no name is longer than people read.
"""

from __future__ import annotations

import re

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import objects, presets
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literals, qualified
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

VERDICTS = ("moves", "stays", "left_behind", "conflicts")
NAMED = objects.NAMED
"""Of a kind and verdict."""
MOST = 200
"""Of a verdict."""
LONGEST = 120
MOST_DETAILS, LONGEST_DETAIL = 8, 160
MOST_VALUE = 1 << 20
HEAD = 8192
OPTIONS = "wp_options"
PLUGINS = "active_plugins"
SETTINGS = {
    OPTIONS: ("option", "option_name", "option_name"),
    "wp_links": ("link", "link_id", "link_name"),
    "wp_woocommerce_tax_rates": ("tax_rate", "tax_rate_id", "tax_rate_name"),
    "wp_wc_tax_rate_classes": ("tax_rate", "slug", "name"),
    "wp_woocommerce_tax_rate_locations": ("tax_rate", "location_id", "location_code"),
    "wp_woocommerce_shipping_zones": ("shipping_zone", "zone_id", "zone_name"),
    "wp_woocommerce_shipping_zone_locations": ("shipping_zone", "location_id", "location_code"),
    "wp_woocommerce_shipping_zone_methods": ("shipping_zone", "instance_id", "method_id"),
    "wp_woocommerce_attribute_taxonomies": ("attribute", "attribute_id", "attribute_label"),
}
"""Kind, key and name of the rows of the write set."""
PARTS = {"plugins": "plugin", "themes": "theme", "mu-plugins": "mu_plugin"}
REASONS = {"moves": "changed_in_source", "stays": "changed_in_target", "conflicts": "changed_in_both"}
_LISTED = re.compile(rb'i:\d+;s:\d+:"([^"]*)";')
_VERSION = re.compile(r"^(?:[ \t]*<\?php)?[ \t/*#@]*Version:(.*)$", re.MULTILINE | re.IGNORECASE)


class Preview:
    """Collects what is told, within bounds."""

    def __init__(self):
        self._counts = {verdict: {} for verdict in VERDICTS}
        self._named = {verdict: [] for verdict in VERDICTS}

    def add(self, verdict, kind, reason, items, count=None):
        """``items``: the first of a kind; ``count``: how many there are of it."""
        items = list(items)
        counts, named = self._counts[verdict], self._named[verdict]
        counts[kind] = counts.get(kind, 0) + (len(items) if count is None else count)
        there = sum(1 for one in named if one["kind"] == kind)
        for item in items[: max(0, min(NAMED - there, MOST - len(named)))]:
            named.append({"kind": kind, "reason": reason, **_bounded(item)})

    def told(self):
        """Counts by verdict and kind, and by verdict what is named."""
        counts = {verdict: {kind: n for kind, n in found.items() if n} for verdict, found in self._counts.items()}
        return {"counts": counts, **self._named}


def preview(sides, written, code, changes):
    """``Preview.told`` of two Sides whose write set, code and protected rows were compared."""
    found = Preview()
    _core(found, sides)
    activated = _activated(sides, written)
    _code(found, sides, code, activated)
    for table in sorted(written):
        if table == OPTIONS:
            _options(found, sides, written[table], activated)
        else:
            _settings(found, sides, table, written[table])
    _pairs(found, sides)
    _protected(found, sides, changes)
    return found.told()


def _core(found, sides):
    here, there = (side.ledger.former.get("variables", {}) for side in (sides.target, sides.source))
    was, will = here.get("wordpress_version"), there.get("wordpress_version")
    if was and will and was != will:
        found.add("moves", "wordpress", REASONS["moves"], [_item(f"{was} → {will}", "changed")])


# Code


def part_of(path):
    """``(kind, name)`` of what a file of wp-content belongs to."""
    first, _, rest = path.partition("/")
    if first in PARTS and rest:
        return PARTS[first], rest.partition("/")[0]
    return "file", "languages" if first == "languages" and rest else path


def _code(found, sides, code, activated):
    source, target = (frozenset(map(part_of, tree)) for tree in sides.trees())
    for verdict, reason in REASONS.items():
        parts = {}
        for path in getattr(code, verdict):
            parts[part_of(path)] = parts.get(part_of(path), 0) + 1
        kinds = sorted({kind for kind, _ in parts})
        for kind in kinds:
            named = sorted(name for one, name in parts if one == kind)
            items = [
                _item(
                    name,
                    _change(verdict, (kind, name) in source, (kind, name) in target),
                    count=parts[kind, name],
                    details=_versions(sides, kind, name),
                )
                for name in named[:NAMED]
            ]
            if verdict == "moves" and kind == "plugin":
                for item in items:
                    item["details"] += [word for slug, word in activated.items() if _slug(slug) == item["name"]]
            found.add(verdict, kind, reason, items, len(named))
    there = {name for kind, name in map(part_of, code.moves) if kind == "plugin"}
    alone = [one for one in sorted(activated.items()) if _slug(one[0]) not in there]
    if alone:
        found.add("moves", "plugin", REASONS["moves"], [_item(_slug(slug), word) for slug, word in alone])


def _change(verdict, in_source, in_target):
    """What the side did that changed it; of what both changed, the source."""
    if in_source and in_target:
        return "changed"
    return "added" if in_source is (verdict != "stays") else "removed"


def _versions(sides, kind, name):
    """The version in the target and in the source, where both say one and it is not the same."""
    if kind not in ("plugin", "theme"):
        return []
    found = [_version(side.content, kind, name) for side in (sides.target, sides.source)]
    return [f"{found[0] or 'none'} → {found[1] or 'none'}"] if found[0] != found[1] else []


def _version(content, kind, name):
    directory = f"{content}/{kind}s/{name}"
    try:
        files = ["style.css"] if kind == "theme" else [one for one in paths.names(directory) if one.endswith(".php")]
        heads = [
            paths.head(f"{directory}/{file}", HEAD) for file in sorted(files, key=lambda f: f != f"{name}.php")[:NAMED]
        ]
        if kind == "plugin" and name.endswith(".php"):
            heads = [paths.head(directory, HEAD)]
    except OSError:
        # Somebody put something else in its place: it is told without.
        return None
    texts = [head.decode("utf-8", "replace").replace("\r", "\n") for head in heads]
    wanted = "Theme Name:" if kind == "theme" else "Plugin Name:"
    told = next((_VERSION.search(text) for text in texts if wanted in text), None)
    return re.sub(r"\s*(?:\*/|\?>).*", "", told[1]).strip()[:LONGEST_DETAIL] or None if told else None


# The write set


def _options(found, sides, options, activated):
    for verdict in REASONS:
        keys = [one for one in getattr(options, verdict) if not (verdict == "moves" and one == PLUGINS and activated)]
        _rows(found, sides, verdict, OPTIONS, keys)
    for reason, names in (("names_other_content", sides.held), ("declared", _declared(sides))):
        items = (_item(name, "changed") for name in names[:NAMED])
        found.add("left_behind", "option", reason, items, len(names))


def _declared(sides):
    """Options that the source changed and the target's document sets."""
    names = sorted(one for one in sides.declared if not presets.is_ignored(OPTIONS, one))
    tables = sides.source.tables(sides.preset, layered=sides.layered) if names else None
    if tables is None or OPTIONS not in tables.shapes:
        return []
    now, was = tables.digests(OPTIONS), sides.rows.get(OPTIONS, {})
    names = [name for name in names if now.get(name) != was.get(name)]
    one, other = (_values(side, names, sides.layered) for side in (sides.source, sides.target))
    return [name for name in names if one.get(name) != other.get(name)]


def _activated(sides, written):
    """``{plugin: activated | deactivated}``, as active_plugins moves."""
    options = written.get(OPTIONS)
    if options is None or PLUGINS not in options.moves:
        return {}
    will, was = (
        {
            name.decode("utf-8", "replace")
            for name in _LISTED.findall(_values(side, [PLUGINS], sides.layered).get(PLUGINS, b""))
        }
        for side in (sides.source, sides.target)
    )
    return {**dict.fromkeys(will - was, "activated"), **dict.fromkeys(was - will, "deactivated")}


def _slug(plugin):
    return plugin.partition("/")[0]


def _values(side, names, layered):
    if not names:
        return {}
    database, normal = side.layout.database, side.normal(layered=layered)
    sql.needed_table(sql.within(database), database, OPTIONS)
    rows = sql.within(database).raw(
        f"SELECT option_name, LEFT(CAST(option_value AS BINARY), {MOST_VALUE}) FROM {qualified(database, OPTIONS)} "
        f"WHERE option_name IN ({literals(names)})"
    )
    return {name.decode("utf-8", "surrogateescape"): normal(value or b"") for name, value in rows}


def _settings(found, sides, table, compared):
    for verdict, reason in REASONS.items():
        keys = getattr(compared, verdict)
        if table in SETTINGS:
            _rows(found, sides, verdict, table, keys)
        elif keys:
            found.add(verdict, "table", reason, [_item(presets.bare(table) or table, "changed", count=len(keys))])


def _pairs(found, sides):
    """Rows that stay as their other half cannot move, and the tables that a plugin brings along."""
    for table in sorted({stay.table for stay in sides.paired}):
        whys = {stay.key: stay.why for stay in sides.paired if stay.table == table}
        if table in SETTINGS:
            _rows(found, sides, "left_behind", table, sorted(whys), "half_of_a_pair", whys)
    made = (_item(presets.bare(table) or table, "added") for table in sides.made[:NAMED])
    found.add("moves", "table", "comes_with_plugin", made, len(sides.made))


def _rows(found, sides, verdict, table, keys, reason=None, whys=None):
    kind, key, name = SETTINGS[table]
    whys = whys or {}
    if not keys:
        return
    try:
        source, target = (
            objects.names_of(side.layout.database, table, key, name, keys[:NAMED])
            for side in (sides.source, sides.target)
        )
        items = [
            _item(
                source.get(one) or target.get(one) or one,
                _change(verdict, one in source, one in target),
                details=[whys[one]] if one in whys else [],
            )
            for one in keys[:NAMED]
        ]
    except sql.SqlError:
        # Another plugin's table of this name: it has other columns.
        items = [_item(one, "changed", details=[whys[one]] if one in whys else []) for one in keys[:NAMED]]
    found.add(verdict, kind, reason or REASONS[verdict], items, len(keys))


# What never moves


def _protected(found, sides, changes):
    halves = [
        objects.Half(side.layout.database, frozenset(tables), side.normal(layered=sides.layered))
        for side, tables in ((sides.source, changes.source_tables), (sides.target, changes.target_tables))
    ]
    for verdict, (here, there), rows, others in (
        ("left_behind", halves, changes.left_behind(), changes.target),
        ("stays", halves[::-1], changes.stays(), changes.source),
    ):
        told, untold = objects.Changed(here, there, rows, others).objects()
        for kind in sorted(told):
            one = told[kind]
            reason = "changed_in_target" if verdict == "stays" else "orders" if kind == "order" else "content"
            # People's: so many, and nothing more.
            items = one.named or ([_item(None, "changed", count=one.count)] if one.count else [])
            found.add(verdict, kind, reason, items, one.count)
        for table in sorted(rows):
            if table in sides.made and verdict == "left_behind":
                continue
            if rows[table] and (table not in objects.TABLES or table in untold):
                reason = REASONS["stays"] if verdict == "stays" else _reason(table, changes)
                found.add(
                    verdict, "table", reason, [_item(presets.bare(table) or table, "changed", count=len(rows[table]))]
                )
    beside = [
        one
        for one in sides.only_in_source()
        if one not in sides.made and (one not in changes.source_tables or not changes.source.get(one))
    ]
    found.add(
        "left_behind",
        "table",
        "only_in_source",
        (_item(presets.bare(one) or one, "added") for one in beside[:NAMED]),
        len(beside),
    )


def _reason(table, changes):
    name = presets.bare(table)
    if name in presets.CONTENT:
        return "content"
    if table not in changes.target_tables:
        return "only_in_source"
    return "orders" if presets.is_of_commerce(table) else "unknown_table"


def _item(name, change, count=None, details=(), number=None, type=None):
    return {"name": name, "change": change, "count": count, "details": list(details), "number": number, "type": type}


def _bounded(item):
    name, kind = item["name"], item.get("type")
    details = [_short(one)[:LONGEST_DETAIL] for one in dict.fromkeys(item["details"])]
    return {
        "name": None if name is None else _short(name),
        "change": item["change"],
        "type": None if kind is None else _short(kind)[:LONGEST_DETAIL],
        "number": item.get("number"),
        "count": item.get("count"),
        "details": details[:MOST_DETAILS],
    }


def _short(name):
    # Bytes that are no text, of a file's name or a column.
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
