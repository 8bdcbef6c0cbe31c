# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Values of a column that is not in UTF-8, read and written as WordPress has them, which is connected by utf8mb4.

A length in serialized data counts the bytes that PHP sees, and not those that are stored.
"""

from __future__ import annotations

import codecs

from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite import Reading, excerpt

UTF8 = frozenset({"utf8mb4", "utf8mb3", "utf8", "NULL", "binary"})
"""Character sets whose bytes PHP sees as they are stored; blobs have none."""
CODECS = {
    "ascii": "ascii",
    "latin1": "cp1252",
    "latin2": "iso8859_2",
    "latin5": "iso8859_9",
    "latin7": "iso8859_13",
    "cp1250": "cp1250",
    "cp1251": "cp1251",
    "koi8r": "koi8_r",
}
"""MariaDB's name of a character set, and Python's."""
UNREAD = frozenset({"ucs2", "utf16", "utf16le", "utf32", "sjis", "cp932", "gbk", "big5"})
"""In these a byte of ASCII may be half of another character."""

NOT_HELD = "its column's character set has no such characters"
NOT_READ = "its column's character set is one that is not read"

# Bytes that cp1252 lacks are control characters to MariaDB.
_LACKING = {byte: chr(byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}


class StoredRewriter:
    """Reads values of such a column with a rewriter for UTF-8; ``needles`` as they are stored."""

    def __init__(self, rewriter, charset):
        self._rewriter = rewriter
        self._characters = _characters(charset)
        self._bytes = codecs.charmap_build(self._characters)
        stored = (self._stored(needle) for needle in rewriter.needles)
        self.needles = [needle for needle in stored if needle is not None]

    def __call__(self, value):
        return self.read(value).value

    def read(self, value):
        """A Reading of a stored value."""
        if all(needle not in value for needle in self.needles):
            return Reading(value)
        try:
            text = codecs.charmap_decode(value, "strict", self._characters)[0].encode()
        except UnicodeDecodeError:
            return Reading(value, 0, [(NOT_READ, excerpt(value))])
        found = self._rewriter.read(text)
        stored = self._stored(found.value)
        if stored is None:
            return Reading(value, 0, [(NOT_HELD, excerpt(text))])
        return Reading(stored, found.count, found.left)

    def _stored(self, value):
        """Bytes in UTF-8 as the column has them; None where it cannot."""
        try:
            return codecs.charmap_encode(value.decode(), "strict", self._bytes)[0]
        except UnicodeError:
            return None


def _characters(charset):
    """The character of each byte, as Python's codecs take them: U+FFFE where there is none."""
    found = [bytes((byte,)).decode(CODECS[charset], "ignore") for byte in range(256)]
    lacking = _LACKING if charset == "latin1" else {}
    return "".join(one or lacking.get(byte, "\ufffe") for byte, one in enumerate(found))
