# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Addresses and directories replaced in a value of a database or a file, also where somebody counted their bytes.

A value is read as WordPress reads it: PHP's serialized form first, with white space around it, then text. A text may
hold strings of JSON or JavaScript, HTML attributes, rawurlencoded and base64 parts, and serialized data anywhere; each
is read again, as deep as ``LAYERS``. Lengths are written anew, and every other byte keeps the form that it has. Keys of
lists, names of classes, and whatever cannot be read for certain stay byte for byte and are told as ``left``.
"""

from __future__ import annotations

import base64
import binascii
import re

from ansible_collections.trueup.wordpress.plugins.module_utils.content import serialized, views
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

LAYERS = 12
"""How many texts may lie inside of each other."""
MOST_ADDRESSES = 100_000
"""Of one value; a hacked site may write a value that holds nothing else, and each takes memory while it is changed."""
MOST_LAYERED = 32 << 20
"""Bytes of a value that is read as more than text or serialized data, and of a part in base64."""
MOST_IN_VAIN = 8
"""How often each byte of a value may be read, on average, for serialized data in its middle that is none."""

BROKEN = "it looks serialized, but PHP cannot read it"
COUNTED = "its length is written beside it in a form that is not known"
KEY = "it is the key of a list"
OWN_FORMAT = "it is in an object whose class alone knows its form"
TOO_DEEP = f"it is more than {LAYERS} layers deep"
TOO_LARGE = "its value is too large to be read for certain"
TOO_MANY = f"its value has more than {MOST_ADDRESSES:,} addresses"
SIGNED = "it is in a token that is signed"
BASE64 = "it is in base64 that is not written as PHP writes it"
NESTED = "it is in base64 in base64"
BINARY = "it is in base64 of what is no text"

_SHORTEST = 4
"""Bytes of a host that is looked for in base64; what a shorter one makes of it is anywhere."""
_EXCERPT = (24, 56)
"""Bytes of an excerpt, before and after the place that it shows."""

_SLASH = rb"(?:\\{0,31}/|(?:%(?:25){0,3}5[Cc]){0,7}%(?:25){0,3}2[Ff]|\\{1,31}u002[Ff]|&#(?:0{0,4}47|[xX]0{0,4}2[Ff]);)"
_COLON = rb"(?::|%(?:25){0,3}3[Aa]|\\{1,31}u003[Aa]|&#(?:0{0,4}58|[xX]0{0,4}3[Aa]);)"
_BEGINS = (
    # Nothing that a name or another scheme ends with; but an escape ends with letters, too: \n, \u0022, %22.
    rb"(?<![:A-Za-z0-9\\])(?<!%3[Aa])(?<!%5[Cc])"
    rb"|(?<=\\[nrtbfv])|(?<=\\u[0-9A-Fa-f]{4})(?<!003[Aa])|(?<=\\x[0-9A-Fa-f]{2})(?<!3[Aa])"
    rb"|(?<=%[0-9A-Fa-f]{2})(?<!3[Aa])(?<!5[Cc])|(?<=%25[0-9A-Fa-f]{2})(?<!3[Aa])(?<!5[Cc])"
)
_HEAD = re.compile(
    rb"(?:(?P<scheme>https?)" + _COLON + rb"|" + _BEGINS + rb")(?P<slash>" + _SLASH + rb")" + _SLASH + rb"\Z"
)
_PLAIN_SLASH = rb"(?:\\{0,63}/|%2[Ff])"
_PLAIN_BEGINS = rb"(?:(?P<scheme>https?)(?::|%3[Aa])|(?<![:A-Za-z0-9])(?<!%3[Aa]))"
_PLAIN_HEAD = re.compile(_PLAIN_BEGINS + rb"(?P<slash>" + _PLAIN_SLASH + rb")" + _PLAIN_SLASH + rb"\Z")
_WINDOW = 192
"""Bytes before a name in which its scheme and slashes are looked for."""
_END = rb"(?![A-Za-z0-9_-]|\.[A-Za-z0-9]|(?::|%(?:25){0,3}3[Aa])[0-9])"
_UUID = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

_COUNT = re.compile(rb"s(?::|%(?:25){0,3}3[Aa])\d{1,10}(?::|%(?:25){0,3}3[Aa])(?P<mark>[\"\\%&'])")
"""A length in front of a string, with the first byte of the quote between them."""
_COUNTED = re.compile(rb"s:[0-9]")
_CLASS = re.compile(rb"C:[0-9]{1,10}:\"")
_COUNT_BEFORE = re.compile(
    rb"s(?::|%(?:25){0,3}3[Aa])\d{1,10}(?::|%(?:25){0,3}3[Aa])"
    rb"(?:\\{0,31}[\"']|\\{1,31}u002[27]|&(?:quot|apos|#0{0,4}3[49]|#[xX]0{0,4}2[27]);|%(?:25){0,3}2[27])\Z"
)
_EMBEDDED = re.compile(rb"(?<![A-Za-z0-9])(?:a:\d{1,10}:\{|[sOC]:\d{1,10}:\")")
_QUOTE = re.compile(rb"(?s:\\.|\")")
_OUTSIDE_TAGS = re.compile(rb"[^\"'<>]*")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BASE64_REST = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_BASE64_ON = re.compile(rb"[A-Za-z0-9+/=]")
_PERCENT = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789%+_.~*!'()-"
_PERCENT_REST = re.compile(rb"[A-Za-z0-9%+_.~*!'()-]*")


class Unreadable(ValueError):
    """The value as a whole stays as it is."""


class Reading:
    """``value``: all replaced that could be; ``count``: how often; ``left``: ``[(why, excerpt)]`` of what stays."""

    def __init__(self, value, count=0, left=()):
        self.value = value
        self.count = count
        self.left = left


class Rewriter:
    """Replaces addresses such as ``http://old.example`` or ``https://old.example/blog`` in bytes.

    ``directories``: pairs of absolute paths, the former and the new one of a site on its node.
    ``layered``: False reads serialized data and text alone, as the first baselines of copies were digested.
    """

    def __init__(self, replacements, directories=(), *, layered=True):
        pairs = {_parts(old): _parts(new) for old, new in replacements}
        self.layered = layered
        self.rules = {}
        for old, new in sorted(pairs.items(), key=lambda pair: -len(pair[0][1])):
            if old != new:
                rule = _Address(old[1], new, layered=layered)
                self.rules.setdefault(rule.needle, []).append(rule)
        for old, new in directories:
            if old != new:
                rule = _Directory(old, new)
                self.rules.setdefault(rule.needle, []).append(rule)
        self.hosts = {needle: rules for needle, rules in self.rules.items() if isinstance(rules[0], _Address)}
        self.encoded = sorted({form for host in self.hosts for form in in_base64(host)}) if layered else []
        self.needles = [*self.rules, *self.encoded]
        """A value that has none of them in it stays as it is."""

    def __call__(self, value):
        """``value`` with every address replaced."""
        return self.read(value).value

    def reader(self, size):
        """What reads one value of so many bytes."""
        return ValueReader(self, size)

    def read(self, value):
        """A ``Reading`` of the value."""
        for needle in self.needles:
            if needle in value:
                break
        else:
            return Reading(value)
        reader = self.reader(len(value))
        try:
            edits = reader.edits(value, 0)
        except (Unreadable, serialized.TooMany) as error:
            at = min(at for at in map(value.find, self.needles) if at >= 0)
            return Reading(value, 0, [(str(error) or TOO_MANY, excerpt(value, at))])
        return Reading(views.applied(value, edits), reader.count, reader.left)


def excerpt(value, at=0):
    """What stands around a place of a value, as a short text that no terminal obeys."""
    before, after = _EXCERPT
    text = value[max(at - before, 0) : at + after].decode("utf-8", "replace")
    return "".join(one if one.isprintable() else "?" for one in text)


def _parts(url):
    scheme, separator, rest = url.rstrip("/").partition("://")
    if not separator or scheme not in ("http", "https") or rest[:1] in ("", "/", ":"):
        raise Failure(f"{url!r} is no address that can be replaced.")
    return scheme, rest


def in_base64(host):
    """What every text in base64 has in it that has the host in it, by where the host begins in its three bytes."""
    if len(host) < _SHORTEST:
        return
    for before, dropped in ((0, 0), (1, 2), (2, 3)):
        whole = 8 * (before + len(host)) // 6
        yield base64.b64encode(b"\0" * before + host)[dropped:whole]


class _Address:
    """One address. Any scheme, or none before two slashes, however they are escaped; and nothing that is longer."""

    def __init__(self, old, new, *, layered):
        host, found = re.fullmatch(r"([^/:]*)(.*)", old, re.DOTALL).groups()
        rest = re.escape(found.encode()).replace(rb":", _COLON if layered else rb"(?::|%3[Aa])")
        self.needle = host.encode()
        self._after = re.compile(rest.replace(rb"/", _SLASH if layered else _PLAIN_SLASH) + _END)
        self._head = _HEAD if layered else _PLAIN_HEAD
        self._scheme, self._new = new[0].encode(), new[1].encode()

    def edits(self, data, at):
        """Where the address begins whose name is at ``at``, and its edits; None where it is none of this rule."""
        end = self._after.match(data, at + len(self.needle))
        if not end:
            return None
        scheme, begins, slash = self._before(data, at)
        if slash is None:
            return None
        end, new = end.end(), self._new
        if slash != b"/":
            new = new.replace(b"/", slash)
            if b":" in new and b"%" in slash:
                new = new.replace(b":", slash[slash.rfind(b"%") :][:-2] + b"3A")
        found = [(at, end, new)]
        if scheme and scheme != self._scheme:
            found.append((begins, begins + len(scheme), self._scheme))
        return begins, found

    def _before(self, data, at):
        """The scheme and where it begins, and the form of a slash; which is None where there is no address."""
        for mark, slash in _USUAL:
            if data.endswith(mark, 0, at):
                end = at - len(mark)
                if data.endswith(b"http", 0, end):
                    return b"http", end - 4, slash
                if data.endswith(b"https", 0, end):
                    return b"https", end - 5, slash
        if data[at - 1 : at] not in _LAST_OF_SLASH:
            return _NONE
        found = self._head.search(data, max(at - _WINDOW, 0), at)
        return (found["scheme"], found.start(), found["slash"]) if found else _NONE


_NONE = (None, 0, None)
_USUAL = ((b"://", b"/"), (rb":\/\/", rb"\/"))
_LAST_OF_SLASH = (b"/", b"F", b"f", b";")


class _Directory:
    """A directory of a site on its node. What lay in one of its releases lies in the one that is served."""

    def __init__(self, old, new):
        above, _, name = old.rpartition("/")
        self.needle = name.encode()
        head = re.escape(above.encode()).replace(rb"/", _SLASH).replace(_SLASH, rb"(?P<slash>" + _SLASH + rb")", 1)
        self._head = re.compile(rb"(?<![A-Za-z0-9_.-])" + head + _SLASH + rb"\Z")
        release = _SLASH + rb"releases" + _SLASH + _UUID + rb"(?![0-9A-Za-z-])"
        self._after = re.compile(rb"(?P<release>" + release + rb")?(?![A-Za-z0-9_-]|\.[A-Za-z0-9])")
        self._new = new.encode()

    def edits(self, data, at):
        end = self._after.match(data, at + len(self.needle))
        head = end and self._head.search(data, max(at - 2 * _WINDOW, 0), at)
        if not head:
            return None
        new = self._new + (b"/current" if end["release"] else b"")
        return head.start(), [(head.start(), end.end(), new.replace(b"/", head["slash"]))]


class ValueReader:
    """Reads one value: its edits (see ``views``), how many addresses are in it, and what is left as it is."""

    def __init__(self, rewriter, size):
        self.rules = rewriter.rules
        self._hosts = rewriter.hosts
        self.needles = rewriter.needles
        self._encoded = rewriter.encoded
        self._layered = rewriter.layered
        self._spare = MOST_IN_VAIN * size
        self.count = 0
        self.left = []

    def edits(self, data, depth):
        if depth > LAYERS:
            return self.leave(TOO_DEEP, data)
        start, end = 0, len(data)
        if self._layered and (data[:1] in _SPACES or data[-1:] in _SPACES):
            end = len(data.rstrip(serialized.SPACE))
            start = end - len(data[:end].lstrip(serialized.SPACE))
        if not serialized.BEGINS.match(data, start, end):
            return self.text(data, depth)
        reader = self._serialized(data, serialized.Hits(data, self.needles))
        try:
            stop = reader.value(start)
        except serialized.Broken:
            return self.leave(BROKEN, data)
        # PHP reads one value, and WordPress looks only at the last byte of what follows it.
        if stop != end and not (self._layered and data[end - 1 : end] in (b";", b"}")):
            return self.leave(BROKEN, data)
        return self._strings_of(reader, depth)

    def leave(self, why, data, start=0, end=None):
        """Note that a part of the data stays as it is: no edits."""
        if all(why != known for known, _ in self.left):
            stop = len(data) if end is None else end
            found = [at for at in (data.find(needle, start, stop) for needle in self.needles) if at >= 0]
            self.left += [(why, excerpt(data, min(found)))] if found else []
        return []

    # Serialized data

    def _serialized(self, data, hits):
        return serialized.Reader(data, hits, MOST_ADDRESSES)

    def _strings_of(self, reader, depth):
        """Edits of what serialized data holds."""
        return [edit for one in reader.found for edit in one.edits(self._counted(reader.data, one, depth))]

    def _counted(self, data, one, depth):
        if one.kind == serialized.Reader.KEY:
            return self.leave(KEY, data, one.start, one.end) if self._layered else []
        inner = data[one.start : one.end]
        if one.kind == serialized.Reader.STRING:
            return self.edits(inner, depth + 1)
        return self._custom(inner, depth + 1) if self._layered else []

    def _custom(self, data, depth):
        """What a class wrote for itself: known if it is values of PHP's, or JSON, which counts nothing."""
        if depth > LAYERS:
            return self.leave(TOO_DEEP, data)
        reader = self._serialized(data, serialized.Hits(data, self.needles))
        try:
            reader.values()
            return self._strings_of(reader, depth)
        except serialized.Broken:
            if data[:1] + data[-1:] in (b"{}", b"[]"):
                return self.text(data, depth)
            return self.leave(OWN_FORMAT, data)

    # Text

    def text(self, data, depth):
        parts, is_counted = self.parts(data, depth) if self._layered else ([], False)
        edits = [edit for _, _, found in parts for edit in found]
        for needle, rules in self.rules.items():
            for at in places_of(data, needle, parts):
                for rule in rules:
                    found = rule.edits(data, at)
                    if found is not None:
                        break
                else:
                    continue
                begins, changes = found
                if is_counted and self.has_length(data, begins):
                    continue
                edits += changes
                self.count += 1
                if self.count > MOST_ADDRESSES:
                    raise Unreadable(TOO_MANY)
        return edits

    def has_length(self, data, start):
        if not _COUNT_BEFORE.search(data, max(start - 64, 0), start):
            return False
        self.leave(COUNTED, data, start, start + 2 * _WINDOW)
        return True

    def parts(self, data, depth):
        """``([(start, end, edits)], whether lengths were seen)`` of what is in a text and is more than text."""
        marks = set()
        if _COUNTED.search(data) or (b"s%" in data and _COUNT.search(data)):
            marks = {found["mark"] for found in _COUNT.finditer(data)}
        if b"C:" in data and _CLASS.search(data):
            marks.add(b'"')
        is_counted = bool(marks)
        encoded, parted = [], []
        for needle in self._encoded:
            if needle in data:
                encoded, parted = self._base64(data)
                break
        escaped = {data[at : at + 1] for part in parted for at in (part[0] - 1, part[1])}
        if not marks and not encoded and not parted:
            return [], False
        if len(data) > MOST_LAYERED:
            raise Unreadable(TOO_LARGE)
        parts = []
        # What can be read just as it stands is meant so; an escape in it is then its own.
        if b'"' in marks:
            parts += self._embedded(data, depth)
        if b"\\" in marks or b"\\" in escaped:
            parts += self._strings(data, depth, parts, every=b"\\" in escaped)
        if b"%" in marks or b"%" in escaped:
            parts += self._percent(data, depth, parts)
        if b"&" in marks:
            parts += self._attributes(data, depth, parts)
        parts.sort(key=lambda part: part[0])
        for start, end in free(parted, parts):
            self.leave(BASE64, data, start, end)
        parts += [(start, end, self._decoded(data, start, end, depth)) for start, end in free(encoded, parts)]
        return sorted(parts, key=lambda part: part[0]), is_counted

    def _strings(self, data, depth, taken, *, every):
        """What stands between two quotes and has an escaped length in it; or ``every`` such string."""
        hits, found = serialized.Hits(data, self.needles), []
        start, has_escape = 0, False
        for mark in _QUOTE.finditer(data):
            if mark[0] != b'"':
                has_escape = True
                continue
            end = mark.start()
            is_meant = has_escape and hits.within(start, end)
            if is_meant and (every or any(one["mark"] == b"\\" for one in _COUNT.finditer(data, start, end))):
                found.append((start, end))
            start, has_escape = mark.end(), False
        return [(*one, self.viewed(views.of_json, data, *one, depth)) for one in free(found, taken)]

    def _percent(self, data, depth, taken):
        places = [found.start() for found in _COUNT.finditer(data) if found["mark"] == b"%"]
        places += [at for needle in self._encoded for at in places_of(data, needle, ())]
        tokens = _tokens(data, places, _PERCENT, _PERCENT_REST)
        tokens = [(start, end) for start, end in tokens if b"%" in data[start:end]]
        return [(*one, self.viewed(views.of_percent, data, *one, depth)) for one in free(tokens, taken)]

    def _attributes(self, data, depth, taken):
        found, done = [], 0
        for count in _COUNT.finditer(data):
            if count["mark"] == b"&" and count.start() >= done:
                start = max(data.rfind(mark, done, count.start()) for mark in (b'"', b"'", b"<", b">")) + 1
                done = _OUTSIDE_TAGS.match(data, count.start()).end()
                found.append((max(start, 0), done))
        return [(*one, self.viewed(views.of_entities, data, *one, depth)) for one in free(found, taken)]

    def viewed(self, view, data, start, end, depth):
        try:
            inner = view(data, start, end)
        except views.TooManyEscapes:
            return self.leave(TOO_LARGE, data, start, end)
        if inner.text == data[start:end]:
            return self.leave(COUNTED, data, start, end)
        return inner.put_back(self.edits(inner.text, depth + 1))

    def _embedded(self, data, depth):
        """Serialized data in the middle of a text, as logs and PHP's sessions have it."""
        found, done = [], 0
        hits = serialized.Hits(data, self.needles)
        for begin in _EMBEDDED.finditer(data):
            at = begin.start()
            if at < done:
                continue
            reader, mark = self._serialized(data, hits), hits.mark()
            try:
                done = reader.value(at)
            except serialized.Broken as error:
                hits.back(mark)
                self._spare -= error.at - at
                if self._spare < 0:
                    raise Unreadable(BROKEN) from None
            else:
                found += [(at, done, reader)] if reader.found else []
        return [(start, end, self._strings_of(reader, depth)) for start, end, reader in found]

    # Base64

    def _base64(self, data):
        """Tokens in base64 that have an address in them; and parts of such tokens, which escapes stand in."""
        places = [at for needle in self._encoded for at in places_of(data, needle, ())]
        whole, parted = [], []
        for start, end in _tokens(data, places, _BASE64, _BASE64_REST):
            is_parted = data[max(start - 1, 0) : start] in _ESCAPES or data[end : end + 1] in _ESCAPES
            (parted if is_parted else whole).append((start, end))
        return whole, parted

    def _decoded(self, data, start, end, depth):
        token = data[start:end]
        try:
            inner = base64.b64decode(token)
        except binascii.Error:
            return self.leave(BASE64, data, start, end)
        count, left = self.count, len(self.left)
        if not any(needle in inner for needle in self.needles):
            return self.leave(BASE64, data, start, end)
        # A directory alone, or base64 alone, would not be found in base64, so neither is with a host beside it: what is
        # rewritten for one address must be found for the next one, too.
        rules, encoded = self.rules, self._encoded
        self.rules, self._encoded = self._hosts, []
        edits = self.edits(inner, depth + 1)
        self.rules, self._encoded = rules, encoded
        for needle in encoded:
            if needle in inner:
                self.leave(NESTED, data, start, end)
        if not edits:
            return []
        # What follows its end would be taken for more of it once it ends without a mark.
        if base64.b64encode(inner) != token or _BASE64_ON.match(data, end):
            why = BASE64
        elif not _is_text(inner):
            why = BINARY
        elif _COUNT_BEFORE.search(data, max(start - 64, 0), start):
            why = COUNTED
        elif data[max(start - 1, 0) : start] in (b".", b"-", b"_") or _SIGNED.match(data, end):
            why = SIGNED
        else:
            return [(start, end, base64.b64encode(views.applied(inner, edits)))]
        self.count = count
        del self.left[left:]
        return self.leave(why, data, start, end)


_ESCAPES = (b"\\", b"%")
_SPACES = tuple(bytes((byte,)) for byte in serialized.SPACE)
_SIGNED = re.compile(rb"\.[A-Za-z0-9_-]|[_-]")
"""What follows a token that is one of several: a JSON web token's, or one of another alphabet."""


def _is_text(data):
    """Whether nothing in it can be a length or a checksum of a picture, an archive or the like."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def places_of(data, needle, parts):
    """Where the needle is, but for what is in ``parts``, which are sorted."""
    at, length = data.find(needle), len(needle)
    if not parts:
        while at >= 0:
            yield at
            at = data.find(needle, at + length)
        return
    following, taken = iter(parts), (0, 0)
    while at >= 0:
        while taken[1] <= at:
            taken = next(following, (len(data), len(data) + 1))
        if taken[0] <= at:
            at = data.find(needle, taken[1])
        else:
            yield at
            at = data.find(needle, at + length)


def _tokens(data, places, alphabet, rest):
    """The runs of bytes of an alphabet that these places are in."""
    done = 0
    for at in sorted(places):
        if at < done:
            continue
        start = at
        while start > done:
            piece = data[max(start - 4096, done) : start]
            kept = len(piece) - len(piece.rstrip(alphabet))
            start -= kept
            if kept < len(piece):
                break
        done = rest.match(data, at).end()
        yield start, done


def free(parts, taken):
    """Those parts that have nothing in common with what is taken; neither overlap among themselves, all are sorted."""
    following, last = iter(sorted(one[:2] for one in taken)), (0, 0)
    for part in parts:
        while last is not None and last[1] <= part[0]:
            last = next(following, None)
        if last is None or part[1] <= last[0]:
            yield part
