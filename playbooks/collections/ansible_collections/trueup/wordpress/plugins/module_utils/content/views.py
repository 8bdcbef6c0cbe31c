# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Texts inside of texts, decoded with where each of their bytes came from.

What is changed in the decoded bytes is an *edit*, ``(start, end, new bytes)``. Put back through its view it changes the
outer bytes at that place alone: all else keeps the very form that its author gave it.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_right

MOST_ESCAPES = 1_000_000
"""Of one text that is decoded; a text with more is left as it is."""

_SURROGATES = rb"\\u[Dd][89AaBb][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}"
# Nothing that is no escape: a backslash before another byte would go with it.
_JSON = re.compile(_SURROGATES + rb"|\\u[0-9A-Fa-f]{4}|\\[\"\\/bfnrt]")
_PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}")
_ENTITY = re.compile(rb"&(?:quot|amp|lt|gt|apos|#0{0,4}(?:34|38|39|47|60|62)|#[xX]0{0,4}(?:2[267Ff]|3[CcEe]));")
_IN_BLOCKS = (("--", r"\u002d\u002d"), ("<", r"\u003c"), (">", r"\u003e"), ("&", r"\u0026"), ('\\"', r"\u0022"))
_LETTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_NAMES = {b"quot": b'"', b"amp": b"&", b"lt": b"<", b"gt": b">", b"apos": b"'"}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class TooManyEscapes(ValueError):
    """Decoding would take more memory than a text of a site may have."""


class View:
    """``text``: what ``data[start:end]`` says once it is decoded."""

    def __init__(self, data, start, end, escape, decoded, encoded):
        self._encoded = encoded
        # Where plain bytes and escapes begin, by turns: in the text, and in the data that it was decoded from.
        self._inner, self._outer = array("q", [0]), array("q", [start])
        parts, at, length = [], start, 0
        for count, found in enumerate(escape.finditer(data, start, end)):
            if count >= MOST_ESCAPES:
                raise TooManyEscapes
            plain, meant = data[at : found.start()], decoded(found[0])
            length += len(plain)
            self._inner.append(length)
            self._outer.append(found.start())
            length += len(meant)
            at = found.end()
            self._inner.append(length)
            self._outer.append(at)
            parts += (plain, meant)
        parts.append(data[at:end])
        self.text = b"".join(parts)

    def put_back(self, edits):
        """Edits of the text as edits of the data."""
        return [(self._place(start), self._place(end), self._encoded(new)) for start, end, new in edits]

    def _place(self, position):
        part = bisect_right(self._inner, position) - 1
        return self._outer[part] + position - self._inner[part]


def of_json(data, start, end):
    """What stands between the quotes of a string in JSON or JavaScript."""
    is_escaped = data.find(rb"\/", start, end) >= 0

    def encoded(new):
        new = new.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return new.replace(b"/", rb"\/") if is_escaped else new

    return View(data, start, end, _JSON, _of_json, encoded)


def of_block(data, start, end):
    """What stands between the quotes of a string of a block's attributes, which stand in an HTML comment."""

    def encoded(new):
        # What is around it may begin or end with a dash as well.
        text = block_text(new.decode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
        return re.sub(r"^-|-\Z", r"\\u002d", text).encode("utf-8", "surrogateescape")

    return View(data, start, end, _JSON, _of_json, encoded)


def block_text(text):
    """A text as WordPress's serialize_block_attributes writes it between quotes."""
    text = json.dumps(text, ensure_ascii=False)[1:-1]
    for plain, escaped in _IN_BLOCKS:
        text = text.replace(plain, escaped)
    return text.encode("utf-8", "surrogateescape")


def of_percent(data, start, end):
    """What was given to ``rawurlencode`` or ``urlencode``; a plus sign stays one."""
    form = b"%%%02x" if re.compile(rb"%(?:[0-9][a-f]|[a-f][0-9a-f])").search(data, start, end) else b"%%%02X"

    def encoded(new):
        return b"".join(b"%c" % byte if byte in _UNRESERVED else form % byte for byte in new)

    return View(data, start, end, _PERCENT, lambda found: bytes((int(found[1:], 16),)), encoded)


def of_entities(data, start, end):
    """What was escaped for HTML."""

    def encoded(new):
        return new.replace(b"&", b"&amp;").replace(b'"', b"&quot;")

    return View(data, start, end, _ENTITY, _of_entity, encoded)


def applied(data, edits):
    """``data`` with its edits, which do not overlap."""
    if not edits:
        return data
    parts, at = [], 0
    for start, end, new in sorted(edits):
        parts += (data[at:start], new)
        at = end
    parts.append(data[at:])
    return b"".join(parts)


def _of_json(found):
    if found[1:2] != b"u":
        return _LETTERS.get(found[1:], found[1:])
    units = [int(found[at + 2 : at + 6], 16) for at in range(0, len(found), 6)]
    character = chr(units[0])
    if len(units) == 2:
        character = chr(0x10000 + (units[0] - 0xD800 << 10) + units[1] - 0xDC00)
    return character.encode("utf-8", "surrogatepass")


def _of_entity(found):
    name = found[1:-1]
    if name[:1] != b"#":
        return _NAMES[name]
    return bytes((int(name[2:], 16) if name[1:2] in b"xX" else int(name[1:]),))
