# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What a dump of a WordPress database may say: make tables, views, triggers, routines and events, fill tables, and set
its own session. Nothing else. Definers are left out: whoever loads it makes them.

This is a courtesy, so that people are told early what is wrong. What keeps a dump inside its database is the user that
loads it, who has rights on nothing else, and a client whose own commands are off.
"""

from __future__ import annotations

import re

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

NEEDED = ("options", "posts", "users", "usermeta")
_SPECIAL = rb"|['\"`\\#\0]|--(?=[\s\x00-\x1f]|$)|/\*(?:M?![0-9]*)?|\*/"
_DELIMITER = re.compile(rb"(?i)\s*DELIMITER[ \t]+(\S+)[ \t]*(?:\r?\n|\Z)")
_A_DELIMITER = re.compile(rb"[;$/|@~^%&!:]{1,8}")
_BEGINS_DEFINER = re.compile(rb"(?i)\bDEFINER\s*=\s*(?:[\w.$-]+\s*@\s*)?\Z")
_QUOTED_USER = re.compile(
    rb"(?:`(?:[^`]|``){0,320}`|'[^']{0,320}'|\"[^\"]{0,320}\")"
    rb"(?:\s*@\s*(?:`(?:[^`]|``){0,260}`|'[^']{0,260}'|\"[^\"]{0,260}\"|[\w.%-]{1,260}))?"
)
_BARE_DEFINER = re.compile(rb"(?i)\bDEFINER\s*=\s*(?:CURRENT_USER(?:\(\))?|[\w.$-]+(?:\s*@\s*[\w.%-]+)?)(?![\w@(])")
_INSIDE = {quote: re.compile(rb"[^%b\\]*(?:\\.[^%b\\]*)*" % (quote, quote), re.DOTALL) for quote in (b"'", b'"')}
_INSIDE[b"`"] = re.compile(rb"[^`]*")
_ALLOWED = re.compile(
    rb"(?i)\s*(?:SET\s|DROP\s+TABLE\s|CREATE\s+TABLE\s|INSERT\s|REPLACE\s+INTO\s|(?:UN)?LOCK\s+TABLES\b"
    rb"|DROP\s+(?:VIEW|TRIGGER|PROCEDURE|FUNCTION|EVENT)\s"
    rb"|CREATE\s+(?:OR\s+REPLACE\s+)?(?:ALGORITHM\s*=\s*\w+\s+)?(?:SQL\s+SECURITY\s+\w+\s+)?(?:AGGREGATE\s+)?"
    rb"(?:VIEW|TRIGGER|PROCEDURE|FUNCTION|EVENT)\s"
    rb"|ALTER\s+TABLE\s|TRUNCATE\s|COMMIT\b|START\s+TRANSACTION\b|BEGIN\b(?!\s+NOT)|ANALYZE\s+TABLE\s|$)"
)
_NEVER = re.compile(rb"(?i)\b(?:INTO\s+(?:OUT|DUMP)FILE|LOAD_FILE|DATA\s+DIRECTORY|INDEX\s+DIRECTORY|SONAME)\b")
_SET = re.compile(rb"(?i)\bGLOBAL\b|\bPERSIST|\bPASSWORD\b|\bROLE\b|NO_BACKSLASH|ANSI_QUOTES|\bANSI\b|sql_log_bin")
_CREATED = re.compile(rb"(?i)\s*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:`([^`]+)`|([A-Za-z0-9_$]+))(\s*\.)?")
_SANDBOX = re.compile(rb"/\*M?!999999\\- enable the sandbox mode \*/ ?")
_COLLATION = re.compile(rb"(?i)utf8mb4_0900_[a-z_]+|utf8mb4_[a-z_]+_0900_[a-z_]+")
_TABLE = re.compile(r"[A-Za-z0-9_$-]{1,64}")
_QUOTES = (b"'", b'"', b"`")
HEAD = 400
AHEAD = 1024
"""Bytes kept until more is known: no token is longer, and no definer."""
FIRST = 128
"""Bytes that say what a file is."""


class Dump:
    """Reads a dump block by block; ``feed`` answers what is to be loaded of it."""

    def __init__(self):
        self.waiting = b""
        self.quote = None
        self.comment = None
        self.head = b""
        self.judged = False
        self.begun = False
        self.delimiter = b";"
        self.special = _special(self.delimiter)
        self.tables = set()

    def feed(self, block):
        """The text to load: the block's, and what waited for it; collations that only MySQL has are replaced."""
        if not self.begun and self.waiting + block:
            block = self.waiting + block
            self.waiting = b""
            if len(block) < FIRST:
                self.waiting = block
                return b""
            block = self._first(block)
        data = self.waiting + block
        cut = max(len(data) - AHEAD, 0)
        text, at = self._read(data, cut, final=False)
        self.waiting = data[at:]
        return text

    def end(self):
        """The last of it; a Failure when the dump is not whole."""
        data = self.waiting if self.begun else self._first(self.waiting)
        text, _ = self._read(data, len(data), final=True)
        if self.quote or self.comment == b"*/" or self.head.strip():
            raise refused("ends in the middle of a statement. Export it again")
        return text

    def prefix(self):
        """The tables' prefix; a Failure when this is not one WordPress."""
        found = [name[: -len("options")] for name in self.tables if name.endswith("options")]
        found = sorted(one for one in found if all(one + part in self.tables for part in NEEDED))
        if not found:
            raise refused("is no WordPress database: no tables of options, posts, users and usermeta are in it")
        if len(found) > 1:
            raise refused(f"holds more than one WordPress (prefixes {', '.join(found[:5])}). Export one of them")
        if found[0] + "blogs" in self.tables and found[0] + "site" in self.tables:
            raise refused("is a network of sites (multisite). Export one site of it as a site of its own")
        return found[0]

    def _first(self, block):
        self.begun = True
        if block.startswith(b"\xef\xbb\xbf"):
            block = block[3:]
        if block[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in block[:64]:
            raise refused("is no text in UTF-8. Export it without converting it")
        return _SANDBOX.sub(b"", block, count=1)

    def _read(self, data, cut, *, final):
        """The text to load up to about ``cut``, and where reading has to go on."""
        out, at = [], 0
        while at < cut or (final and at < len(data)):
            if self.quote:
                end = self._quoted(data, at)
            elif self.comment:
                end = self._commented(data, at, final)
            else:
                end = self._code(data, at, cut, out, final)
                if end == at:
                    break
                at = end
                continue
            out.append(data[at:end])
            if end == at:
                break
            at = end
        return b"".join(out), at

    def _quoted(self, data, at):
        end = _INSIDE[self.quote].match(data, at).end()
        if end < len(data) and data[end : end + 1] == self.quote:
            self.quote = None
            end += 1
        self._note(data[at : min(end, at + HEAD)])
        return end

    def _commented(self, data, at, final):
        end = data.find(self.comment, at)
        if end < 0:
            # A mark of two bytes may be cut in two.
            return len(data) if final else max(at, len(data) - 1)
        end += len(self.comment)
        self.comment = None
        return end

    def _code(self, data, at, cut, out, final):
        if not self.head.strip() and (delimiter := _DELIMITER.match(data, at)):
            return self._delimited(delimiter, out)
        found = self.special.search(data, at)
        if found is None or (found.start() >= cut and not final):
            end = len(data) if final else self._whole_words(data, at, cut)
            self._text(data[at:end], out)
            return end
        text, token = data[at : found.start()], found.group()
        if token in _QUOTES and (definer := _BEGINS_DEFINER.search(text)):
            user = _QUOTED_USER.match(data, found.start())
            if user is None:
                raise refused("has a view, trigger or routine whose definer is no name of a user. Take it out")
            self._text(text[: definer.start()], out)
            return user.end()
        self._text(text, out)
        if token in (b"\\", b"\0"):
            raise refused("holds a command of the client (a backslash outside of a text). Export it with mariadb-dump")
        if token in _QUOTES:
            self.quote = token
            self._note(token)
        elif token == self.delimiter:
            self._judge()
            self.head, self.judged = b"", False
        elif token in (b"#", b"--"):
            self.comment = b"\n"
        elif token == b"/*":
            self.comment = b"*/"
        # What is inside of /*! is run like what is outside of it.
        out.append(token)
        return found.end()

    def _delimited(self, found, out):
        """What ends a statement from here on: bodies of triggers and routines have semicolons in them."""
        if not _A_DELIMITER.fullmatch(found[1]):
            raise refused(f"ends statements with {found[1][:20].decode('utf-8', 'replace')!r}. Use DELIMITER ;;")
        self.delimiter, self.special = found[1], _special(found[1])
        out.append(found.group())
        return found.end()

    @staticmethod
    def _whole_words(data, at, cut):
        """Where to stop so that no word is cut, unless it is longer than any word."""
        space = max(data.rfind(b" ", at, cut), data.rfind(b"\n", at, cut))
        if space >= at:
            return space + 1
        return cut if len(data) - at > 4096 else at

    def _text(self, text, out):
        if _NEVER.search(text):
            raise refused(f"says {_NEVER.search(text).group().decode().upper()}, which an import may not. Take it out")
        text = _BARE_DEFINER.sub(b"", text)
        self._note(text)
        out.append(_COLLATION.sub(b"utf8mb4_unicode_520_ci", text))

    def _note(self, text):
        if self.judged or not text:
            return
        self.head += (text if self.head else text.lstrip())[: HEAD - len(self.head)]
        if len(self.head) >= HEAD:
            self._judge()

    def _judge(self):
        if self.judged:
            return
        self.judged = True
        said = " ".join(self.head.decode("utf-8", "replace").split())[:80]
        if not _ALLOWED.match(self.head) or (self.head[:3].upper() == b"SET" and _SET.search(self.head)):
            raise refused(f"says {said!r}, but an import only makes and fills its own tables. Take it out")
        created = _CREATED.match(self.head)
        if created:
            name = (created[1] or created[2]).decode("utf-8", "replace")
            if created[3] or not _TABLE.fullmatch(name):
                raise refused(f"makes a table {name[:80]!r} that an import may not make")
            self.tables.add(name)


def _special(delimiter):
    """What the reading has to stop at."""
    return re.compile(re.escape(delimiter) + _SPECIAL)


def refused(why):
    return Failure(f"The archive's db.sql {why}. Nothing was changed.", trueup_code="IMPORT_DATABASE_REFUSED")
