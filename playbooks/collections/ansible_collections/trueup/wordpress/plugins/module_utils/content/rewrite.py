# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Addresses in a database replaced, also where PHP counted their bytes.

A value may be text, PHP's serialized form (whose strings carry their lengths), JSON, or one inside the other. Lengths
are written anew; what only looks serialized, and is not, stays byte for byte, because nobody could read it afterwards
either way. Keys, object class names and the column ``guid`` (which names a post for feed readers and is no link) stay.
"""

from __future__ import annotations

import re

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

_SLASH = rb"(?:\\*/|%2[Ff])"
_SERIALIZED = re.compile(rb"^(?:a:\d+:\{|O:\d+:\"|s:\d+:\"|C:\d+:\"|E:\d+:\")")


class Rewriter:
    """Replaces addresses such as ``http://old.example`` or ``https://old.example/blog`` in bytes."""

    def __init__(self, replacements):
        pairs = sorted({_parts(old): _parts(new) for old, new in replacements}.items(), key=lambda p: -len(p[0][1]))
        self.rules = [(_pattern(old), new) for old, new in pairs if old != new]
        self.hosts = sorted({old[1].split("/")[0].split(":")[0].encode() for old, _ in pairs})

    def __call__(self, value):
        """``value`` with every address replaced."""
        if not any(host in value for host in self.hosts):
            return value
        if _SERIALIZED.match(value):
            try:
                return _Serialized(value, self).rewritten()
            except (ValueError, IndexError, RecursionError):
                return value
        for pattern, new in self.rules:
            value = pattern.sub(lambda found, new=new: _address(found, new), value)
        return value


def _parts(url):
    scheme, separator, rest = url.rstrip("/").partition("://")
    if not separator or scheme not in ("http", "https") or not rest:
        raise Failure(f"{url!r} is no address that can be replaced.")
    return scheme, rest


def _pattern(old):
    """Any scheme, or none before two slashes, however they are escaped; and nothing that is a longer name."""
    host = re.escape(old[1].encode()).replace(rb":", rb"(?::|%3[Aa])").replace(rb"/", _SLASH)
    scheme = rb"(?P<scheme>https?)(?P<colon>:|%3[Aa])|(?<![:A-Za-z0-9])(?<!%3[Aa])"
    end = rb"(?![A-Za-z0-9_-]|\.[A-Za-z0-9]|(?::|%3[Aa])[0-9])"
    return re.compile(rb"(?:" + scheme + rb")(?P<slashes>" + _SLASH + rb"{2})" + host + end)


def _address(found, new):
    slashes = found["slashes"]
    slash = slashes[: len(slashes) // 2]
    colon = found["colon"] or b""
    rest = new[1].encode().replace(b"/", slash)
    if b":" in rest and b"%" in slash:
        rest = rest.replace(b":", b"%3A")
    scheme = new[0].encode() if found["scheme"] else b""
    return scheme + colon + slashes + rest


class _Serialized:
    """PHP's serialized form, read once from the left and written anew as it is read."""

    def __init__(self, data, rewrite):
        self.data = data
        self.rewrite = rewrite
        self.at = 0
        self.out = []

    def rewritten(self):
        self._value()
        if self.at != len(self.data):
            raise ValueError("something follows the value")
        return b"".join(self.out)

    def _until(self, end):
        stop = self.data.index(end, self.at)
        part = self.data[self.at : stop]
        self.at = stop + 1
        return part

    def _expect(self, mark):
        if self.data[self.at : self.at + len(mark)] != mark:
            raise ValueError(f"no {mark!r} at {self.at}")
        self.at += len(mark)

    def _number(self, end):
        digits = self._until(end)
        if not digits.isdigit():
            raise ValueError("no length")
        return int(digits)

    def _value(self, *, key=False):
        kind = self.data[self.at : self.at + 2]
        if kind in (b"i:", b"d:", b"b:", b"r:", b"R:"):
            self.out.append(self._until(b";") + b";")
        elif kind == b"N;":
            self.at += 2
            self.out.append(b"N;")
        elif kind in (b"s:", b"E:"):
            self._string(kind, kept=key or kind == b"E:")
        elif kind == b"a:":
            self.at += 2
            self._members(b"a:")
        elif kind == b"O:":
            self.at += 2
            self._members(b"O:" + self._class_name())
        elif kind == b"C:":
            self._custom()
        else:
            raise ValueError(f"no value at {self.at}")

    def _raw(self):
        """A length, and as many bytes in quotes."""
        length = self._number(b":")
        self._expect(b'"')
        text = self.data[self.at : self.at + length]
        self.at += length
        self._expect(b'"')
        return text

    def _string(self, kind, *, kept):
        self.at += 2
        text = self._raw()
        self._expect(b";")
        text = text if kept else self.rewrite(text)
        self.out.append(kind + str(len(text)).encode() + b':"' + text + b'";')

    def _class_name(self):
        name = self._raw()
        self._expect(b":")
        return str(len(name)).encode() + b':"' + name + b'":'

    def _members(self, head):
        count = self._number(b":")
        self._expect(b"{")
        self.out.append(head + str(count).encode() + b":{")
        for _ in range(count):
            self._value(key=True)
            self._value()
        self._expect(b"}")
        self.out.append(b"}")

    def _custom(self):
        """A class that reads its own bytes: nobody else knows what is in them."""
        start = self.at
        self.at += 2
        self._class_name()
        length = self._number(b":")
        self._expect(b"{")
        self.at += length
        self._expect(b"}")
        self.out.append(self.data[start : self.at])
