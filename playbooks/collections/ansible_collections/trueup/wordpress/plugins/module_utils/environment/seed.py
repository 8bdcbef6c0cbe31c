# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A fresh WordPress as rows: what ``wp core install`` made once on this node, with marks where sites differ.

It is root's file, with its own sha256 in its first line. Whatever goes into a statement is a number, a moment or
hexadecimal, so no title can break out of it.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import os
import re
import secrets
import time

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import read, write_durably

SEEDS = "/var/lib/trueup/seeds"
FORMAT = 1
HOST = "trueup-seed.invalid"
TITLE = "Trueup seed title"
ADMIN_USER = "trueupseedadmin"
ADMIN_EMAIL = "webmaster@trueup-seed-mail.invalid"
MARKS = re.compile("|".join(map(re.escape, (HOST, TITLE, ADMIN_USER, ADMIN_EMAIL))))

YEAR_S = 366 * 86400
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_SECONDS = re.compile(r"\d{10}")
_DUE = re.compile(r"(?<=i:)\d{10}(?=;a:)")
_TABLE = re.compile(r"CREATE TABLE `wp_[a-z_]+` \([A-Za-z0-9_ `(),'=\n.:-]+")
_NAME = re.compile(r"[A-Za-z_]+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_BCRYPT = re.compile(r"\$wp\$2y\$\d\d\$[./A-Za-z0-9]{53}")
_PORTABLE = re.compile(r"\$P\$B[./A-Za-z0-9]{30}")
_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

# WordPress cleans what it is given. Where cleaning does more than what is done here, WordPress installs itself.
_UNCLEAN = re.compile(r"&#?[A-Za-z0-9]+;|[\x00-\x1f\x7f\ud800-\udfff]|^\s*(?:N;|[a-zA-Z]:)")
_LOGIN = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_EMAIL = re.compile(r"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@([A-Za-z0-9]+(-[A-Za-z0-9]+)*\.)+[A-Za-z]{2,}")
_ESCAPES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#039;"))


def values_of(variables):
    """What stands in a new site's rows where the seed has marks; None where only WordPress itself can tell."""
    content = variables["content"]
    title, login, email = content["title"], content["admin_user"], content["admin_email"]
    if _UNCLEAN.search(title) or not _LOGIN.fullmatch(login) or not _EMAIL.fullmatch(email):
        return None
    for plain, escaped in _ESCAPES:
        title = title.replace(plain, escaped)
    host = variables["url"].partition("://")[2]
    return {HOST: host, TITLE: title, ADMIN_USER: login, ADMIN_EMAIL: email}


class Seed:
    """``tables``: each with ``name create``, ``columns`` (name, whether it holds numbers) and ``rows`` of texts."""

    def __init__(self, tables):
        self.tables = tables

    @property
    def moment(self):
        """When they were made, in seconds since 1970."""
        users = next(table for table in self.tables if table["name"] == "wp_users")
        names = [name for name, _ in users["columns"]]
        return _seconds(users["rows"][0][names.index("user_registered")])

    def statements(self, values, now):
        """Statements that make all tables in the database in use, as if WordPress had been installed at ``now``."""
        fill = Filling(values, self.moment, int(now))
        parts = ["SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"]
        for table in self.tables:
            parts.append(table["create"])
            if table["rows"]:
                rows = ",\n".join(f"({', '.join(fill.row(table, row))})" for row in table["rows"])
                columns = ", ".join(f"`{name}`" for name, _ in table["columns"])
                parts.append(f"INSERT INTO `{table['name']}` ({columns}) VALUES\n{rows}")
        return parts

    def flaw(self):
        """In words, what keeps this seed from being used; None where nothing does."""
        marked = set()
        for table in self.tables:
            if not _TABLE.fullmatch(table["create"]) or not all(_NAME.fullmatch(name) for name, _ in table["columns"]):
                return f"table {table['name']} is made by a statement of another shape"
            for row in table["rows"]:
                for (_, is_number), cell in zip(table["columns"], row):  # noqa: B905 - not in Python 3.9
                    if why := _flaw_of(cell, is_number):
                        return f"table {table['name']} has {why}"
                    marked |= set(MARKS.findall(cell or ""))
        lacking = {HOST, TITLE, ADMIN_USER, ADMIN_EMAIL} - marked
        return f"{sorted(lacking)} is nowhere in it" if lacking else None


def _flaw_of(cell, is_number):
    if cell is None:
        return None
    if is_number:
        return None if _NUMBER.fullmatch(cell) else "something else in a column of numbers"
    return "a mark in a serialized value" if MARKS.search(cell) and re.match(r"[aOsC]:\d+:", cell) else None


class Filling:
    """A seed's cells as the literals of one site."""

    def __init__(self, values, moment, now):
        self.values = values
        self.moment = moment
        self.shift = now - moment

    def row(self, table, row):
        named = dict(zip((name for name, _ in table["columns"]), row))  # noqa: B905 - not in Python 3.9
        for (name, is_number), cell in zip(table["columns"], row):  # noqa: B905
            if cell is None:
                yield "NULL"
            elif is_number:
                yield cell
            else:
                text = self._cell(table["name"], name, named)
                yield f"CONVERT(X'{text.encode().hex()}' USING utf8mb4)"

    def _cell(self, table, column, row):
        cell = row[column]
        if (table, column) == ("wp_users", "user_pass"):
            return locked(cell)
        if _MOMENT.fullmatch(cell):
            return self._later(cell)
        if table == "wp_options" and column == "option_value":
            if row["option_name"] == "cron":
                return _DUE.sub(lambda found: self._second(found.group()), cell)
            if _SECONDS.fullmatch(cell):
                return self._second(cell)
        return MARKS.sub(lambda found: self.values[found.group()], cell)

    def _second(self, digits):
        """Ten digits that tell a moment about then, moved; any other ten digits as they are."""
        moment = int(digits)
        return str(moment + self.shift) if abs(moment - self.moment) < YEAR_S else digits

    def _later(self, text):
        if text.startswith("0000"):
            return text
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(_seconds(text) + self.shift))


def _seconds(text):
    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


def locked(like):
    """A password's hash of the same form that no password is known to have: people come in by magic login."""
    for form, head in ((_BCRYPT, len("$wp$2y$10$")), (_PORTABLE, len("$P$B"))):
        if form.fullmatch(like):
            return like[:head] + "".join(secrets.choice(_ALPHABET) for _ in like[head:])
    raise ValueError("WordPress hashes passwords in a form that is not known here.")


# The file


def path_of(of):
    return f"{SEEDS}/{of['version']}-{of['locale']}-{of['scheme']}-{of['type']}.json"


def load(of):
    """The seed that was made of exactly this; None where there is none, another one, or a damaged one."""
    digest, _, body = (read(path_of(of)) or b"").partition(b"\n")
    if digest.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
        return None
    found = json.loads(body)
    return Seed(found["tables"]) if found["of"] == of else None


def keep(of, seed):
    os.makedirs(SEEDS, mode=0o700, exist_ok=True)
    body = json.dumps({"of": of, "tables": seed.tables}, sort_keys=True).encode()
    write_durably(path_of(of), hashlib.sha256(body).hexdigest().encode() + b"\n" + body, 0o600)
