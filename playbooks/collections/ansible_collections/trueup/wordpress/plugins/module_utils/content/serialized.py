# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""PHP's serialized form, read once from the left; what its strings become is for somebody else to say.

The reader has no recursion, so a value may be as deep as PHP reads it, and each byte is looked at once.
"""

from __future__ import annotations

import re

BEGINS = re.compile(rb"(?:a:\d{1,10}:\{|[OsCE]:\d{1,10}:\")")
SPACE = b" \t\n\r\0\x0b"
"""What PHP's trim() takes away: WordPress does so before it unserializes."""
DEEPEST = 4096
"""How deep PHP reads arrays and objects (unserialize_max_depth)."""

_TOKEN = re.compile(
    rb"(?:i:[+-]?\d{1,400}|d:[-+.0-9A-Z]{1,400}|b:[01]|[rR]:\d{1,20}|N);"
    rb"|(?P<kind>[saOEC]):(?P<size>\d{1,10}):(?P<mark>[\"{])"
)
_COUNT = re.compile(rb"\":(?P<size>\d{1,10}):\{")
_BETWEEN = re.compile(rb"[,;:]?(?:[xm]:)?")
"""What stands between the values that ArrayObject, SplObjectStorage and SplDoublyLinkedList write."""


class Broken(ValueError):
    """What looked serialized cannot be read by PHP either; ``at``: how far it could be read."""

    def __init__(self, why, at):
        super().__init__(why)
        self.at = at


class TooMany(ValueError):
    """More strings have what is looked for than a value may have."""


class Counted:
    """A string, a key or what a class wrote for itself: ``data[start:end]``, whose length stands at ``size``."""

    __slots__ = ("end", "kind", "size", "start")

    def __init__(self, kind, size, start, end):
        self.kind = kind
        self.size = size
        self.start = start
        self.end = end

    def edits(self, inner):
        """Edits of what it holds as edits of the data, and of its length; see module ``views``."""
        if not inner:
            return []
        length = self.end - self.start + sum(len(new) - (end - start) for start, end, new in inner)
        found = [(self.start + start, self.start + end, new) for start, end, new in inner]
        return [(*self.size, b"%d" % length), *found]


class Reader:
    """``hits`` says whether something that is looked for begins in a part of the data: see ``Hits``.

    ``found``: the Counted that have something in them, once they are read.
    """

    STRING, KEY, CUSTOM = "string", "key", "custom"

    def __init__(self, data, hits, most):
        self.data = data
        self.found = []
        self._hits = hits
        self._most = most

    def value(self, at):
        """Read the one value that begins at ``at``: where it ends.

        Raises:
            Broken: it is none.
            TooMany: it would fill ``found`` with more than ``most``.
        """
        data, containers, left = self.data, [], 1
        while True:
            if not left:
                if not containers:
                    return at
                if data[at : at + 1] != b"}":
                    raise Broken("a list that does not end", at)
                at += 1
                left = containers.pop()
                continue
            token = _TOKEN.match(data, at)
            if not token:
                raise Broken("no value", at)
            left -= 1
            kind = token["kind"]
            if kind is None:
                at = token.end()
            elif kind in (b"s", b"E"):
                start = token.end()
                at = self._ended(token, start, start + int(token["size"]), b'";')
                if kind == b"s":
                    is_key = left % 2 == 1 and bool(containers)
                    self._note(self.KEY if is_key else self.STRING, token, start, at - 2)
            elif kind == b"C":
                counted = self._class(token)
                start = counted.end()
                at = self._ended(token, start, start + int(counted["size"]), b"}")
                self._note(self.CUSTOM, counted, start, at - 1)
            else:
                members = token if kind == b"a" else self._class(token)
                if kind == b"a" and token["mark"] != b"{":
                    raise Broken("no list", at)
                at = members.end()
                containers.append(left)
                left = 2 * int(members["size"])
                if len(containers) > DEEPEST:
                    raise Broken("deeper than PHP reads", at)

    def values(self):
        """Read all of the data as values, with the marks between them that PHP's own classes write.

        Raises:
            Broken: it is nothing of the kind.
        """
        at = 0
        while at < len(self.data):
            after = _BETWEEN.match(self.data, at).end()
            at = self.value(after) if after < len(self.data) else after

    def _ended(self, token, start, end, mark):
        if token["mark"] != b'"' or self.data[end : end + len(mark)] != mark:
            raise Broken("a length that is wrong", start)
        return end + len(mark)

    def _class(self, token):
        """What stands behind the name of a class."""
        after = _COUNT.match(self.data, token.end() + int(token["size"]))
        if token["mark"] != b'"' or not after:
            raise Broken("no class", token.start())
        return after

    def _note(self, kind, counted, start, end):
        if end > self._hits.nearest and self._hits.within(start, end):
            if len(self.found) >= self._most:
                raise TooMany
            self.found.append(Counted(kind, counted.span("size"), start, end))


class Hits:
    """Where something that is looked for begins in the data, asked from left to right."""

    def __init__(self, data, needles):
        self._data = data
        self._next = {needle: at for needle in needles if (at := data.find(needle)) >= 0}
        # Of each, between which two places none is: whoever goes back to a mark need not look there again.
        self._gaps = {needle: (0, at) for needle, at in self._next.items()}
        self.nearest = min(self._next.values(), default=len(data))
        """Before this, nothing is."""

    def __bool__(self):
        return bool(self._next)

    def within(self, start, end):
        for needle, at in self._next.items():
            if at < start:
                self._next[needle] = self._after(needle, start)
        self.nearest = min(self._next.values(), default=len(self._data))
        return self.nearest < end

    def mark(self):
        return dict(self._next)

    def back(self, mark):
        """Ask again from where a mark was made."""
        self._next = mark
        self.nearest = min(mark.values(), default=len(self._data))

    def _after(self, needle, start):
        first, last = self._gaps[needle]
        if not first <= start <= last:
            found = self._data.find(needle, start)
            first, last = self._gaps[needle] = (start, found if found >= 0 else len(self._data))
        return last
