# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Any text replaced in a value of a database, byte for byte as it was given, also where somebody counted its bytes.

A value is read in the same layers as for an address (see ``rewrite``), and besides as JSON: as a whole, or as what a
block of WordPress's editor says of itself in a comment. In a string of JSON the new text is written as JSON has it.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right

from ansible_collections.trueup.wordpress.plugins.module_utils.content import serialized, views
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite import (
    KEY,
    MOST_ADDRESSES,
    MOST_LAYERED,
    TOO_DEEP,
    TOO_LARGE,
    TOO_MANY,
    Rewriter,
    Unreadable,
    ValueReader,
    free,
    in_base64,
    places_of,
)

SHORTEST, LONGEST = 2, 1000
"""Characters of a text that is looked for."""

ACROSS = "it begins outside of a string or a value that is counted, and ends in it"
NO_JSON = "the value would no longer be JSON"

_STRING = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_COLON = re.compile(rb"\s*:")
_BLOCK = b"<!-- wp:"
_BEGINS = re.compile(rb"[ \t\n\r]*[\[{\"]")
_SPACES = " \u00a0"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def refusal(search, replace):
    """Why this text cannot be replaced by that one; None where it can."""
    if not SHORTEST <= len(search) <= LONGEST or not search.strip(_SPACES):
        return f"The text to look for has {SHORTEST} to {LONGEST} characters, and not spaces alone."
    if len(replace) > LONGEST:
        return f"The new text has {LONGEST} characters at most."
    if _CONTROLS.search(search + replace):
        return "The texts have no line breaks in them, and no other control characters."
    if search == replace:
        return "Both texts are the same."
    return None


class TextRewriter(Rewriter):
    """Replaces ``search`` by ``replace`` in bytes that are encoded as ``encoding``.

    Raises:
        UnicodeEncodeError: the encoding has no such characters.
    """

    def __init__(self, search, replace, encoding="utf-8"):
        self.layered = True
        self.rules = {search.encode(encoding): replace.encode(encoding)}
        if encoding == "utf-8":
            for form in _FORMS:
                self.rules.setdefault(form(search), form(replace))
        self.hosts = self.rules
        self.encoded = sorted({form for rule in self.rules for form in in_base64(rule)})
        self.needles = [*self.rules, *self.encoded]

    def reader(self, size):
        return TextReader(self, size)


def _json(text, *, ascii_alone, slashes):
    form = json.dumps(text, ensure_ascii=ascii_alone)[1:-1]
    return (form.replace("/", r"\/") if slashes else form).encode()


_FORMS = (
    lambda text: _json(text, ascii_alone=True, slashes=True),
    lambda text: _json(text, ascii_alone=True, slashes=False),
    lambda text: _json(text, ascii_alone=False, slashes=True),
    lambda text: _json(text, ascii_alone=False, slashes=False),
    lambda text: json.dumps(_json(text, ascii_alone=True, slashes=True).decode())[1:-1].replace("/", r"\/").encode(),
    views.block_text,
)
"""As PHP's json_encode and WordPress write it; the last but one is JSON in a string of JSON."""


class TextReader(ValueReader):
    """Reads one value."""

    def text(self, data, depth):
        parts, is_counted = self.parts(data, depth)
        regions = _regions(data)
        parts += self._strings_of_json(data, regions, depth, parts)
        parts.sort(key=lambda part: part[0])
        edits = sorted(edit for _, _, found in parts for edit in found)
        plain = self._plain(data, parts, is_counted=is_counted)
        if regions and plain:
            plain = self._still_json(data, regions, edits, plain)
        self.count += len(plain)
        if self.count > MOST_ADDRESSES:
            raise Unreadable(TOO_MANY)
        return edits + plain

    def _plain(self, data, parts, *, is_counted):
        """Edits of what stands in none of the parts."""
        found = []
        for form, new in self.rules.items():
            for at in places_of(data, form, ()):
                found.append((at, at + len(form), new))
                if len(found) > MOST_ADDRESSES:
                    raise Unreadable(TOO_MANY)
        # Of two forms in the same place the longer one is meant.
        found.sort(key=lambda edit: (edit[0], edit[0] - edit[1]))
        starts, chosen, done = [part[0] for part in parts], [], 0
        for start, end, new in found:
            if start < done:
                continue
            first = bisect_right(starts, start) - 1
            if first >= 0 and end <= parts[first][1]:
                continue
            last = bisect_right(starts, end - 1) - 1
            if (first >= 0 and start < parts[first][1]) or last > first:
                self.leave(ACROSS, data, start, end)
            elif not (is_counted and self.has_length(data, start)):
                chosen.append((start, end, new))
                done = end
        return chosen

    def _strings_of_json(self, data, regions, depth, taken):
        """Parts of strings that have something in them; of a key, nothing changes."""
        found = []
        for start, end, view in regions:
            for string in _STRING.finditer(data, start, end):
                if any(data.find(needle, *string.span(1)) >= 0 for needle in self.needles):
                    is_key = _COLON.match(data, string.end(), end)
                    found.append((*string.span(1), None if is_key else view))
        parts = []
        for start, end, view in free(found, taken):
            edits = self.viewed(view, data, start, end, depth) if view else self.leave(KEY, data, start, end)
            parts.append((start, end, edits))
        return parts

    def viewed(self, view, data, start, end, depth):
        """The same as for an address, where it need not differ from what it is decoded to."""
        try:
            inner = view(data, start, end)
        except views.TooManyEscapes:
            return self.leave(TOO_LARGE, data, start, end)
        return inner.put_back(self.edits(inner.text, depth + 1))

    def _still_json(self, data, regions, edits, plain):
        """Without those edits of JSON's own marks after which it would be none."""
        starts, ends, inner = [edit[0] for edit in plain], [edit[1] for edit in plain], [edit[0] for edit in edits]
        dropped = set()
        for start, end, _ in regions:
            own = plain[bisect_right(ends, start) : bisect_left(starts, end)]
            if not own or (own[0][0] <= start and end <= own[0][1]):
                continue
            if start <= own[0][0] and own[-1][1] <= end:
                among = [*own, *edits[bisect_left(inner, start) : bisect_left(inner, end)]]
                if _is_json(views.applied(data[start:end], [(a - start, b - start, new) for a, b, new in among])):
                    continue
            self.leave(NO_JSON, data, own[0][0], own[0][1])
            dropped.update(own)
        return [edit for edit in plain if edit not in dropped]


def _regions(data):
    """``[(start, end, view)]`` of JSON: all of it, or the attributes of its blocks."""
    if _BEGINS.match(data):
        if len(data) > MOST_LAYERED and data.rstrip(serialized.SPACE)[-1:] in (b"}", b"]", b'"'):
            raise Unreadable(TOO_LARGE)
        if _is_json(data):
            return [(0, len(data), views.of_json)]
    found, at = [], data.find(_BLOCK)
    while at >= 0:
        end = data.find(b"-->", at)
        if end < 0:
            break
        first, last = data.find(b"{", at, end), data.rfind(b"}", at, end) + 1
        if 0 <= first < last and last - first <= MOST_LAYERED and _is_json(data[first:last]):
            found.append((first, last, views.of_block))
        at = data.find(_BLOCK, end)
    return found


def _is_json(data):
    try:
        json.loads(data)
    except RecursionError:
        raise Unreadable(TOO_DEEP) from None
    except ValueError:
        return False
    return True
