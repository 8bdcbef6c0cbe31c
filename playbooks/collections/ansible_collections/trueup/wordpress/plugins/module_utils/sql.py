# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""MariaDB as this node's modules talk to it: through a driver, over the socket.

A name goes through ``identifier``, a value through ``literal``; nothing else of a site's ever stands in a statement.
Root makes and drops databases, users and rights, and reads information_schema; inside of a site's databases works a
user of the run's own, who has rights there and nowhere else: what a site hid in a view or a trigger then has no more.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import time
from itertools import islice

from ansible_collections.trueup.wordpress.plugins.module_utils import driver
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

SOCKET = "/run/mysqld/mysqld.sock"
CONNECT_S = 30
ANSWER_S = 7200
"""The longest that one statement may take; jobs have their own, shorter ends."""
LOCK_S = 60
"""How long a statement waits for somebody else's lock on a table: whoever has the site may hold one for ever."""
AT_ONCE = 1 << 20
MOST_ROWS, MOST_BYTES = 1000, 8 << 20
"""What is read of an answer that a site makes."""
PACKET = 192 << 20
"""The longest statement that the server takes: a row of 64 MB in hexadecimal, and what is around it."""
LONGEST_NAME = 64
LONGEST_MESSAGE = 2000
OF_AN_ENVIRONMENT = re.compile(r"wp_([0-9a-f]{12})(?:_[a-z]+)?")
UNUSABLE = "DATABASE_UNUSABLE"
OWN_TRIES = 40
TAKEN = frozenset({1040, 1203, 1226})
"""MariaDB's numbers for a connection too many."""
DENIED = 1045
"""Its number for a password that is another."""
LOCKED = 1205
"""Its number for a lock that was waited for too long."""
AS_OURS = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"

FILL = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES"


class SqlError(Failure):
    """What MariaDB said no to; ``code`` is its number."""

    def __init__(self, message, code, **facts):
        super().__init__(message, **facts)
        self.code = code


# What stands in a statement


def identifier(name):
    """A database's, table's or column's name as a statement may hold it, whatever is in it."""
    if not name or len(name) > LONGEST_NAME or "\0" in name:
        raise Failure(f"{name[:80]!r} is no name of a table or column.", trueup_code=UNUSABLE)
    return "`" + name.replace("`", "``") + "`"


def qualified(*names):
    """``database.table`` or ``database.table.column``."""
    return ".".join(identifier(name) for name in names)


def literal(value):
    """A text, bytes, a whole number or None as a statement may hold it: in hexadecimal, so nothing can end it."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, int):
        return str(value)
    return f"_utf8mb4 X'{value.encode('utf-8', 'surrogateescape').hex()}'"


def literals(values):
    """What stands in the parentheses of IN."""
    return ", ".join(literal(value) for value in values) or "NULL"


def pattern(name):
    """In a grant an underscore stands for any character."""
    return name.replace("_", "\\_")


# Connections


class Session:
    """One connection. Answers are texts, or bytes where somebody reads a stream; every value that is null is None.

    ``many``: it may send more than one statement at once, as ``together`` does.
    """

    def __init__(self, user, password="", database=None, answer_s=ANSWER_S, *, many=False):
        pymysql = driver.loaded()
        self._login = (user, password, database)
        self._driver = pymysql
        with self._refusals():
            self._connection = pymysql.connect(
                unix_socket=SOCKET,
                user=user,
                password=password,
                database=database,
                charset="utf8mb4",
                use_unicode=False,
                conv={},
                autocommit=True,
                client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS if many else 0,
                init_command=f"SET SESSION lock_wait_timeout = {LOCK_S}",
                connect_timeout=min(CONNECT_S, answer_s),
                read_timeout=answer_s,
                write_timeout=answer_s,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End it; what was not committed is undone."""
        with contextlib.suppress(self._driver.MySQLError, OSError):
            self._connection.close()

    def say(self, *statements):
        """Run statements one after the other; the first that is refused ends it."""
        with self._refusals():
            for statement in statements:
                self._connection.query(_sent(statement))

    def changed(self, statement):
        """Run a statement; how many rows it changed."""
        with self._refusals():
            return self._connection.query(_sent(statement))

    def together(self, statements):
        """Run many statements in one transaction and few journeys; where one is refused, none of them counts."""
        for part in _parts(["BEGIN", *statements, "COMMIT"]):
            try:
                with self._refusals():
                    self._connection.query(_sent(";\n".join(part)))
                    while self._connection._result.has_next:
                        self._connection.next_result()
            except SqlError:
                with contextlib.suppress(Failure):
                    self.say("ROLLBACK")
                raise

    def rows(self, query):
        """All rows of an answer, as tuples of texts."""
        return [tuple(map(_text, row)) for row in self.raw(query)]

    def raw(self, query):
        """All rows of an answer, as tuples of bytes."""
        with self._refusals(), self._connection.cursor() as cursor:
            cursor.execute(_sent(query))
            return list(cursor.fetchall())

    def few(self, query, most=MOST_ROWS, most_bytes=MOST_BYTES):
        """The first rows of an answer that may have no end, as tuples of texts; what would be too much is a Failure."""
        found, size = [], 0
        for row in islice(self.stream(query), most):
            found.append(tuple(map(_text, row)))
            size += sum(len(value) for value in row if value is not None)
            if size > most_bytes:
                raise Failure("The database's answer has no end that anybody would wait for.", trueup_code=UNUSABLE)
        return found

    def value(self, query):
        """The first value of the first row; None where there is no row."""
        rows = self.rows(query)
        return rows[0][0] if rows else None

    def stream(self, query, *before):
        """Rows as tuples of bytes, one at a time, over a connection of their own: a table need not fit into memory.

        ``before``: statements that this connection is given first.
        """
        from pymysql.cursors import SSCursor  # noqa: PLC0415

        with Session(*self._login) as reader, reader._refusals():
            reader.say(*before)
            cursor = SSCursor(reader._connection)
            try:
                cursor.execute(_sent(query))
                if cursor._result.unbuffered_active:
                    yield from driver.unbuffered(cursor)
            finally:
                # Closing a cursor would read to the answer's end; the connection goes anyway.
                if cursor._result is not None:
                    cursor._result.unbuffered_active = False
                reader._connection._force_close()

    @contextlib.contextmanager
    def _refusals(self):
        try:
            yield
        except self._driver.MySQLError as error:
            raise _refused(error) from error


def _parts(statements):
    """The statements in lists whose texts are no longer than what is sent at once, unless one alone is."""
    part, length = [], 0
    for statement in statements:
        if part and length + len(statement) > AT_ONCE:
            yield part
            part, length = [], 0
        part.append(statement)
        length += len(statement)
    yield part


def _sent(statement):
    return statement.encode("utf-8", "surrogateescape")


def _text(value):
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _refused(error):
    code, said = (*error.args, "", "")[:2] if error.args else (0, str(error))
    if isinstance(said, bytes):
        said = said.decode("utf-8", "replace")
    return SqlError(f"MariaDB refused (error {code}): {str(said)[:LONGEST_MESSAGE]}", code)


# Who works in a database

_root = []
_accounts = {}


def root():
    """The server's administrator: for databases, users, rights and information_schema alone."""
    if _root and not _root[0]._connection.open:
        _root.clear()
    if not _root:
        _root.append(Session("root"))
    return _root[0]


def own(database, password):
    """A session of the environment's permanent user; waits a while where the site has all its connections in use.

    A password that the site changed is again ``password``.
    """
    is_set = False
    for _ in range(OWN_TRIES):
        try:
            return Session(database, password, database)
        except SqlError as error:
            if error.code == DENIED and not is_set:
                root().say(f"ALTER USER {identifier(database)}@localhost IDENTIFIED BY {quoted(password)}")
                is_set = True
                continue
            if error.code not in TAKEN:
                raise
            time.sleep(0.5)
    return Session(database, password, database)


def end_prepared():
    """Undo what was prepared (XA) over connections that are gone.

    Any user may prepare something and go away: its locks stay then, even while the server is started anew, and nobody
    but root would ever end them.
    """
    for *_, name in root().rows("XA RECOVER FORMAT='SQL'"):
        # The server writes what is not letters, digits and spaces in hexadecimal.
        if re.fullmatch(r"[0-9A-Za-z ,']+", name):
            # What a connection still has at work is none of ours, and is refused.
            with contextlib.suppress(SqlError):
                root().say(f"XA ROLLBACK {name}")


def unlocked(work):
    """What ``work`` returns; where it waits for a lock in vain it is done once more without what was left prepared."""
    try:
        return work()
    except SqlError as error:
        if error.code != LOCKED:
            raise
    end_prepared()
    return work()


def within(database):
    """This run's session in all databases of the environment that ``database`` belongs to."""
    return account(database).session()


def opened(database):
    """The same as a session of its own, whose transaction ends with it."""
    one = account(database)
    return Session(one.name, one.password, many=True)


def between(source, target):
    """A session that may read one database and fill another, and nothing else."""
    return account(target, f"{source} {target}", "b", {source: "SELECT", target: FILL}).session()


def account(database, key=None, kind="a", rights=None):
    """A user of this run's own, by ``kind`` and ``key``. ``rights``: by database; left out: all of a site's."""
    short = short_of(database)
    found = _accounts.get((kind, key or short))
    if found is None:
        # The environment's databases begin alike, and no other environment's do.
        rights = rights or {f"wp_{short}": "ALL PRIVILEGES", f"wp_{short}_%": "ALL PRIVILEGES"}
        found = _accounts[kind, key or short] = Account(short, f"{kind}{len(_accounts)}", rights)
    return found


def short_of(database):
    """The twelve digits of the environment whose database this is; a Failure when it is nobody's."""
    found = OF_AN_ENVIRONMENT.fullmatch(database)
    if not found:
        raise Failure(f"{database!r} is no database of an environment.")
    return found[1]


class Account:
    """A user of one run's, which goes with the run, or with the next one after a kill."""

    def __init__(self, short, kind, rights):
        self.name = f"trueup_{short}_{os.getpid()}_{kind}"
        self.password = secrets.token_hex(24)
        self._session = None
        if not any(one.name.startswith(f"trueup_{short}_") for one in _accounts.values()):
            forget_killed(short)
        make_room()
        who = f"{identifier(self.name)}@localhost"
        root().say(
            f"CREATE USER {who} IDENTIFIED BY {quoted(self.password)}",
            *(f"GRANT {right} ON {identifier(pattern(name))}.* TO {who}" for name, right in rights.items()),
        )
        atexit.register(self._drop)

    @property
    def credentials(self):
        """``(arguments, environment)`` of a client's process: no password is in a process list."""
        return (f"--socket={SOCKET}", f"--user={self.name}"), {"MYSQL_PWD": self.password}

    def session(self):
        if self._session is None or not self._session._connection.open:
            self._session = Session(self.name, self.password)
        return self._session

    def _drop(self):
        with contextlib.suppress(Failure):
            root().say(_dropped(self.name))


def make_room():
    """Have the server take long statements, where its own settings are older than the node's baseline is now."""
    if int(root().value("SELECT @@GLOBAL.max_allowed_packet")) < PACKET:
        root().say(f"SET GLOBAL max_allowed_packet = {PACKET}")


def of_runs(short):
    """SQL that picks the users of an environment's runs out of mysql.global_priv."""
    return f"Host = 'localhost' AND User LIKE {literal(pattern(f'trueup_{short}_') + '%')}"


def forget_killed(short):
    """Drop the users that runs left which were killed; those of runs that are at work stay."""
    mine = {one.name for one in _accounts.values()}
    forget_accounts(short, lambda name, pid: name not in mine and not (pid and os.path.exists(f"/proc/{pid}")))


def forget_accounts(short, is_over=lambda _name, _pid: True):
    """Drop the users of an environment's runs."""
    for (name,) in root().rows(f"SELECT User FROM mysql.global_priv WHERE {of_runs(short)}"):
        pid = name.split("_")[2]
        if is_over(name, int(pid) if pid.isdecimal() and int(pid) != os.getpid() else None):
            root().say(_dropped(name))


def _dropped(user):
    return f"DROP USER IF EXISTS {identifier(user)}@localhost"


def quoted(password):
    """A password that is made here: letters, digits, dashes; statements about users take no hexadecimal."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{20,200}", password):
        raise Failure("A password of a database user is not of the form that is made here.")
    return f"'{password}'"


# Databases


def make_anew(name):
    """An empty database; what was there under this name goes."""
    drop(name)
    root().say(f"CREATE DATABASE {identifier(name)} {AS_OURS}")


def drop(*names):
    unlocked(lambda: root().say(*(f"DROP DATABASE IF EXISTS {identifier(name)}" for name in names)))


def tables(database, condition=""):
    """Names of the base tables, in their order. ``condition``: an AND of SQL about information_schema.tables."""
    rows = root().rows(
        "SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE' "
        f"AND table_schema = {literal(database)} {condition} ORDER BY table_name"
    )
    return [name for (name,) in rows]


def move(moves):
    """Rename tables ``[(database, database, table), …]`` in one step, all of one environment's databases."""
    if moves:
        steps = ", ".join(f"{qualified(one, table)} TO {qualified(other, table)}" for one, other, table in moves)
        unlocked(lambda: within(moves[0][0]).say(f"RENAME TABLE {steps}"))


# What is there


def bounded(rows, most_rows, most_bytes, what):
    """Rows of bytes as they come; a Failure that says ``what`` is too much, before it is in anybody's memory."""
    size = 0
    for count, row in enumerate(rows, 1):
        size += sum(len(value) for value in row if value is not None)
        if count > most_rows or size > most_bytes:
            raise Failure(
                f"{what} are more than {most_rows:,}, or than {most_bytes >> 20} MB. No site has so many: look at what "
                "wrote them.",
                trueup_code=UNUSABLE,
            )
        yield row


def stored_columns(database, table):
    """Names of a table's columns in their order, but for those that follow from others."""
    rows = within(database).rows(
        "SELECT column_name FROM information_schema.columns WHERE extra NOT LIKE '%GENERATED%' "
        f"AND table_schema = {literal(database)} AND table_name = {literal(table)} ORDER BY ordinal_position"
    )
    return [name for (name,) in rows]


def base_table(session, database, table):
    """Whether there is such a table; a Failure where somebody put a view in its place."""
    kind = session.value(
        "SELECT table_type FROM information_schema.tables "
        f"WHERE table_schema = {literal(database)} AND table_name = {literal(table)}"
    )
    if kind not in (None, "BASE TABLE"):
        raise Failure(
            f"{table} of database {database} is no table but a {kind.lower()}, so nothing is read from it. "
            "Put the table back, or restore a backup.",
            trueup_code=UNUSABLE,
        )
    return kind is not None


def needed_table(session, database, table):
    if not base_table(session, database, table):
        raise Failure(f"Database {database} has no table {table}. Restore a backup.", trueup_code=UNUSABLE)
