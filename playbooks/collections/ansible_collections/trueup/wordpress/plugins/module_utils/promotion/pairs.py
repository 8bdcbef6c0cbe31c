# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What means nothing without another thing: of such a pair both halves move, or neither.

A row that moves stays where something that it needs, and that the source has, would not be in the target: a tax rate
without its class. So does one whose going would take from the target what a row there needs. What a row of the target
needs already is not asked for anew, and nobody mends here what was half before. ``PAIRS`` says what belongs together.
"""

from __future__ import annotations

from collections import namedtuple

from ansible_collections.trueup.wordpress.plugins.module_utils.promotion import references
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.halves import (
    ENGINES,
    OPTIONS,
    Rows,
    Tables,
    Values,
    engines,
    lines,
    plugins,
)

NAMED = 5
LONGEST_NAME = 60


class Pair(namedtuple("Pair", "needing needed what by makes", defaults=(False,))):
    """``needing`` and ``needed`` are words for people. ``what``: the half that needs; ``by``: those that bring it.

    ``makes``: what is lacking of tables is made in the target, and both halves move.
    """

    __slots__ = ()


Stay = namedtuple("Stay", "table key why")
"""A row that stays, and the reason for people."""

RATES, RATE_PLACES = "wp_woocommerce_tax_rates", "wp_woocommerce_tax_rate_locations"
CLASSES, ATTRIBUTES = "wp_wc_tax_rate_classes", "wp_woocommerce_attribute_taxonomies"
ZONES, ZONE = "wp_woocommerce_shipping_zones", "wp_woocommerce_shipping_zone"
TERMS = Rows(
    "wp_term_taxonomy",
    "SELECT x.term_taxonomy_id, SUBSTR(x.taxonomy, 4), t.slug FROM {0} x JOIN {1} t USING (term_id) "
    "WHERE x.taxonomy LIKE 'pa\\_%'",
    ("wp_terms",),
)
ITEMS = Rows(
    "wp_term_relationships",
    "SELECT CONCAT_WS(',', r.object_id, r.term_taxonomy_id), x.term_id, CONCAT(p.ID, ' ', p.guid) FROM {0} r "
    "JOIN {1} x USING (term_taxonomy_id) JOIN {2} p ON p.ID = r.object_id "
    "WHERE x.taxonomy = 'nav_menu' AND p.post_type = 'nav_menu_item' AND p.post_status = 'publish'",
    ("wp_term_taxonomy", "wp_posts"),
)


def _menus(name, value):
    return {str(number) for number in references.named(name, value)[1]}


PAIRS = (
    Pair(
        "a tax rate",
        "tax class",
        Rows(RATES, "SELECT tax_rate_id, tax_rate_class FROM {0} WHERE tax_rate_class <> ''"),
        (Rows(CLASSES, "SELECT slug, slug, slug FROM {0}"), Values("woocommerce_tax_classes", lines)),
    ),
    Pair(
        "a tax rate's location",
        "tax rate",
        Rows(RATE_PLACES, "SELECT location_id, tax_rate_id FROM {0}"),
        (Rows(RATES, "SELECT tax_rate_id, tax_rate_id, tax_rate_id FROM {0}"),),
    ),
    Pair(
        "a location of a shipping zone",
        "shipping zone",
        Rows(f"{ZONE}_locations", "SELECT location_id, zone_id FROM {0} WHERE zone_id <> 0"),
        (Rows(ZONES, "SELECT zone_id, zone_id, zone_id FROM {0}"),),
    ),
    Pair(
        "a method of a shipping zone",
        "shipping zone",
        Rows(f"{ZONE}_methods", "SELECT instance_id, zone_id FROM {0} WHERE zone_id <> 0"),
        (Rows(ZONES, "SELECT zone_id, zone_id, zone_id FROM {0}"),),
    ),
    Pair(
        "a product attribute",
        "terms",
        Rows(ATTRIBUTES, "SELECT attribute_id, attribute_name FROM {0}"),
        (TERMS,),
    ),
    Pair(
        "a term",
        "product attribute",
        TERMS,
        (Rows(ATTRIBUTES, "SELECT attribute_id, attribute_name, attribute_name FROM {0}"),),
    ),
    Pair(
        "a menu's location",
        "items of its menu",
        Values("theme_mods_.*|widget_nav_menu", _menus),
        (ITEMS,),
    ),
    Pair("an active plugin", "tables", Values("active_plugins", plugins), (Tables(),), makes=True),
)
"""Identity is what the second column of a query says, or what a value names: a class's slug, an attribute's name."""


class Reading(namedtuple("Reading", "pair needs_there needs_here brings_there brings_here makeable")):
    """A pair as both sides have it: ``there`` in the source, ``here`` in the target; ``makeable``: names of tables."""

    __slots__ = ()

    def unpaired(self, coming, moving):
        """``{row: why}`` of the rows that cannot move alone. ``coming``: what moves, or would but for a conflict."""
        pair, found = self.pair, {}
        brought = _all(_after(self.brings_here, self.brings_there, moving))
        for row in coming & self.needs_there.keys():
            if lacks := {name for name in self._lacks(row, brought) if name not in self.makeable}:
                found[row] = f"it needs {pair.needed} that the target lacks: {_few(lacks)}"
        needs = _all(_after(self.needs_here, self.needs_there, moving))
        for row in moving & self.brings_here.keys():
            if lost := {about for about, _ in self.brings_here[row] - brought if about in needs}:
                found[row] = f"{pair.needing} of the target needs it: {_few(lost)}"
        own = _all({row: members for row, members in self.brings_here.items() if row not in moving})
        for row in (moving & self.brings_there.keys()) - self.brings_here.keys():
            if row[0] != OPTIONS and self.brings_there[row] <= own:
                names = _few(member for _, member in self.brings_there[row])
                found[row] = f"the target has its own {pair.needed} of this name: {names}"
        return found

    def made(self, moving):
        """Names of the tables that are to be made in the target for what moves."""
        rows = moving & self.needs_there.keys() if self.makeable else ()
        return set().union(*(self._lacks(row, _all(self.brings_here)) for row in rows)) & self.makeable

    def _lacks(self, row, brought):
        about = self.needs_there[row] - self.needs_here.get(row, set())
        return {member for one, member in _all(self.brings_there) - brought if one in about}


def read(pair, source, target, coming):
    """The Reading of a pair, each side a ``Place``; None where nothing of it is coming."""
    if not any(half.is_among(coming) for half in (pair.what, *pair.by)):
        return None
    there, here = pair.what.needs(source), pair.what.needs(target)
    about = set().union(*(there[row] - here.get(row, set()) for row in coming & there.keys()))
    brings_there, brings_here = {}, {}
    for half in pair.by:
        brings_here.update(half.brings(target, about, None))
        brings_there.update(half.brings(source, about, target))
    makeable = frozenset()
    if pair.makes:
        kept = engines(source.database, {name for _, name in _all(brings_there)})
        makeable = frozenset(name for name, engine in kept.items() if engine in ENGINES)
    return Reading(pair, there, here, brings_there, brings_here, makeable)


def decide(readings, coming, moving):
    """``({row: why}, names of tables to make)``: what stays, and what stays because of that, to the end."""
    stays = {}
    while True:
        found = {}
        for reading in readings:
            for row, why in reading.unpaired(coming - stays.keys(), moving - stays.keys()).items():
                found.setdefault(row, why)
        if not found:
            break
        stays.update(found)
    return stays, set().union(*(reading.made(moving - stays.keys()) for reading in readings))


def settle(found, source, target):
    """``(stays, made)`` for comparisons by table: a sorted tuple of ``Stay``, and a sorted one of names of tables."""
    moving = {(table, key) for table, one in found.items() for key in one.moves}
    coming = moving | {(table, key) for table, one in found.items() for key in one.conflicts}
    readings = [reading for reading in (read(pair, source, target, coming) for pair in PAIRS) if reading]
    stays, made = decide(readings, coming, moving)
    return tuple(Stay(*row, why) for row, why in sorted(stays.items())), tuple(sorted(made))


def _after(here, there, moving):
    """The target's rows once what moves has moved."""
    kept = {row: found for row, found in here.items() if row not in moving}
    return {**kept, **{row: found for row, found in there.items() if row in moving}}


def _all(rows):
    return set().union(*rows.values())


def _few(names):
    names = sorted(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(name[:LONGEST_NAME] for name in names[:NAMED]) + more
