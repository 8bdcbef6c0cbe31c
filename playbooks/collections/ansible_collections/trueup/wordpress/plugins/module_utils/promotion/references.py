# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Options whose values are the numbers of posts, attachments or terms.

Content never moves, and what is made after a copy gets whatever number is next: post 727 is a page of the copy and an
order of production. Such an option moves only where what it names is the same on both sides.
"""

from __future__ import annotations

import re

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literal, literals, qualified

TABLE = "wp_options"
POSTS = re.compile(
    r"page_on_front|page_for_posts|wp_page_for_privacy_policy|site_icon|site_logo|custom_logo|.*_page_id"
    r"|woocommerce_placeholder_image"
)
"""Each is one number of a post or an attachment."""
TERMS = re.compile(r"default_(?:category|link_category|email_category|product_cat|term_.+)")
"""Each is one number of a term."""
MIXED = re.compile(r"theme_mods_.*|widget_.*|nav_menu_options|.*_settings")
"""Among their many values are such numbers, by the names below."""
OF_POSTS = ("custom_css_post_id", "custom_logo", "attachment_id", "page_id", "site_icon", "site_logo")
OF_TERMS = ("nav_menu", "nav_menu_locations", "auto_add")
PAIRED = {"show_on_front": ("page_on_front", "page_for_posts")}
"""What means nothing without the others: it stays where one of them does."""
MOST_BYTES = 1 << 20
MOST_OPTIONS, MOST_VALUES = 100_000, 32 << 20
"""Options that are looked at, and bytes of them all."""
MOST_NUMBERS = 1000

_MEMBER = re.compile(
    rb's:\d+:"(' + "|".join((*OF_POSTS, *OF_TERMS)).encode() + rb')";(?:i:(\d+);|s:\d+:"(\d+)";|a:\d+:\{([^{}]*)\})'
)
_NUMBER = re.compile(rb'(?:i:\d+;|s:\d+:"[^"]*";)(?:i:(\d+);|s:\d+:"(\d+)";)')


def named(option, value):
    """``(posts, terms)``: the numbers that an option's value, in bytes, names; 0 names nothing."""
    posts, terms = set(), set()
    if POSTS.fullmatch(option) or TERMS.fullmatch(option):
        number = value.strip()
        if number.isdigit() and len(number) < 20:
            (posts if POSTS.fullmatch(option) else terms).add(int(number))
    elif MIXED.fullmatch(option):
        for found in _MEMBER.finditer(value):
            numbers = [found[2] or found[3]] if found[4] is None else [a or b for a, b in _NUMBER.findall(found[4])]
            kind = posts if found[1].decode() in OF_POSTS else terms
            kind.update(int(number) for number in numbers if len(number) < 20)
    return posts - {0}, terms - {0}


def unresolved(source, target, options):
    """Those of ``options`` whose value in database ``source`` names what ``target`` lacks, or has as something else."""
    values = _values(source, [one for one in options if any(k.fullmatch(one) for k in (POSTS, TERMS, MIXED))])
    found = {option: named(option, value) for option, value in values.items()}
    posts = set().union(*(one[0] for one in found.values())) if found else set()
    terms = set().union(*(one[1] for one in found.values())) if found else set()
    known = _alike(_posts(source, posts), _posts(target, posts)), _alike(_terms(source, terms), _terms(target, terms))
    held = {
        option for option, (of_posts, of_terms) in found.items() if not (of_posts <= known[0] and of_terms <= known[1])
    }
    return held | {one for one, others in PAIRED.items() if one in options and held.intersection(others)}


def _values(database, options):
    if not options:
        return {}
    rows = sql.within(database).stream(
        f"SELECT option_name, LEFT(option_value, {MOST_BYTES}) FROM {qualified(database, TABLE)} "
        f"WHERE option_name IN ({literals(options)})"
    )
    rows = sql.bounded(rows, MOST_OPTIONS, MOST_VALUES, "The options that name posts or terms")
    return {name.decode("utf-8", "surrogateescape"): value or b"" for name, value in rows}


def _posts(database, numbers):
    """``{number: identities}``: by where it was made, and by what it is called among its kind."""
    rows = _rows(database, "wp_posts", "SELECT ID, guid, post_type, post_name FROM {} WHERE ID IN ({})", numbers)
    return {
        number: {("guid", guid, kind)} | ({("name", name, kind)} if name else set())
        for number, guid, kind, name in rows
    }


def _terms(database, numbers):
    if not numbers:
        return {}
    taxonomy = qualified(database, "wp_term_taxonomy")
    query = (
        "SELECT t.term_id, t.slug, x.taxonomy FROM {} t JOIN " + taxonomy + " x USING (term_id) WHERE t.term_id IN ({})"
    )
    found = {}
    for number, slug, kind in _rows(database, "wp_terms", query, numbers):
        found.setdefault(number, set()).add((slug, kind))
    return found


def _rows(database, table, query, numbers):
    if not numbers:
        return []
    session = sql.within(database)
    sql.needed_table(session, database, table)
    chosen = ", ".join(literal(number) for number in sorted(numbers)[:MOST_NUMBERS])
    return session.rows(query.format(qualified(database, table), chosen))


def _alike(one, other):
    """The numbers that are the same thing on both sides."""
    return {int(number) for number in one.keys() & other.keys() if one[number] & other[number]}
