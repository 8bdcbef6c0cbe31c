# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Databases as streams of SQL, for which there are processes: who prints one may read it alone, who loads one may fill
one alone.

A stream has tables and their rows. What a database has beside them is not in it; see ``content.stored_objects``.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

READ = "SELECT, SHOW VIEW"
OURS = "trueup_"
"""Tables whose names begin so are Trueup's own: in no backup, no comparison, no copy."""
LONGEST_ROW = 64 << 20
"""Bytes. In a statement a row takes twice as many, and what names it a little more."""
TOO_LARGE = "CONTENT_TOO_LARGE"

# Of the client's own commands none is run, whatever a stream says; the server cannot ask for files of this host.
CLIENT = ("mariadb", "--no-defaults", "--batch", "--binary-mode", "--sandbox", "--local-infile=0")
CLIENT += ("--default-character-set=utf8mb4", "--max-allowed-packet=1G")
DUMP = ("mariadb-dump", "--no-defaults", "--single-transaction", "--quick", "--hex-blob", "--skip-comments")
DUMP += ("--default-character-set=utf8mb4", "--no-tablespaces", "--skip-dump-date", "--skip-triggers")
DUMP += (f"--max-allowed-packet={LONGEST_ROW + (1 << 20)}",)
"""Reads one moment of a database and locks nothing. No comments: a name with a line break would end one.

A row that could not be loaded again ends it.
"""

_NAME = '(`[^`]*`|"[^"]*")'
_USER = f"DEFINER={_NAME}@{_NAME}"
NO_DEFINER = "; ".join(
    (
        rf"s#^(/\*!50013) {_USER} #\1 #",
        rf"s#^(/\*!50003 CREATE\*/) /\*!50017 {_USER}\*/#\1#",
        rf"s#^(/\*!50106 CREATE\*/) /\*!50117 {_USER}\*/#\1#",
        rf"s#^CREATE {_USER} ((AGGREGATE )?(FUNCTION|PROCEDURE) )#CREATE \3#",
    )
)
"""Takes definers out of what mariadb-dump writes; no row of a table begins a line so."""

# What only views, triggers and routines have: definers, and rights that a user who fills tables has not.
_FIXED = re.compile(r"(?:CREATE VIEW|TRIGGER) command denied|ERROR 1449 |the .*SET USER.* privilege")
# The same of a user who has these rights: what they speak of is not there, or is another database's.
_NOT_ITS_OWN = re.compile(r"ERROR (?:1044|1142|1143|1146|1227|1305|1356|1370|1449) ")
_LOST = re.compile(r"Error 20(?:06|13|20)\b")
_PACKET = re.compile(r"ERROR (?:1153|2006|2020) ")


def reader(database):
    """What a dump is started with: arguments and environment of a user who may read this database alone."""
    return sql.account(database, database, "r", {database: READ}).credentials


def filler(database):
    """What a client is started with that loads a dump: a user who may fill this database alone."""
    return sql.account(database, database, "f", {database: sql.FILL}).credentials


def owner(database):
    """The same of a user who may also make views, triggers, routines and events there."""
    return sql.account(database, database, "m", {database: "ALL PRIVILEGES"}).credentials


def left_out(database, ours=OURS):
    """Options of a dump that leave out what is no table, and the tables whose names begin with ``ours``.

    Where WordPress's table of options is none, what is dumped would be no WordPress: a Failure.
    """
    schema = sql.literal(database)
    if sql.tables(database):
        sql.needed_table(sql.within(database), database, "wp_options")
    rows = sql.root().rows(
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = {schema} "
        f"AND (table_type <> 'BASE TABLE' OR LEFT(table_name, {len(ours)}) = BINARY {sql.literal(ours)})"
    )
    return [f"--ignore-table={database}.{name}" for (name,) in rows]


def started(run, database, ours=OURS):
    """A process that prints the tables of a database."""
    arguments, environment = reader(database)
    return run.start([*DUMP, *arguments, *left_out(database, ours), database], environment=environment)


def load(run, process, database, *, hint, source=None):
    """What ``process`` prints goes into a database; a Failure when either of the two fails.

    ``source``: the database that ``process`` reads, where it reads one.
    """
    text = _load(run, [process], filler(database), database)
    if text is None:
        return
    if source:
        explain(source, text)
    raise Failure(f"{hint} {text}", **code_of(text))


def load_whole(run, process, database, *, hint):
    """The same for a stream that has more than tables in it: whoever loads it makes that, without its definers."""
    if process.stdin:
        process.stdin.close()
    stripped = run.start(["sed", "--regexp-extended", NO_DEFINER], environment={"LC_ALL": "C"}, feed=process.stdout)
    process.stdout.close()
    text = _load(run, [process, stripped], owner(database), database)
    if text is not None:
        raise Failure(f"{hint} {text}", **code_of(text, _NOT_ITS_OWN))


def _load(run, processes, credentials, database):
    """What the processes that failed said at their end; None where none did."""
    arguments, environment = credentials
    last = processes[-1]
    writer = run.start([*CLIENT, *arguments, database], environment=environment, feed=last.stdout)
    if last.stdin:
        last.stdin.close()
    last.stdout.close()
    streams = [writer.stdout, writer.stderr, *(process.stderr for process in processes)]
    with ThreadPoolExecutor(len(streams)) as pool:
        said = b"".join(pool.map(drained, streams))
    status = [process.wait() for process in (*processes, writer)]
    if not any(status):
        return None
    return f"(exit status {status}): {said.decode('utf-8', 'replace').strip()[-sql.LONGEST_MESSAGE :]}"


def code_of(text, fixed=_FIXED):
    """What a client's words on a stream that it does not take mean, as facts of a Failure."""
    if _PACKET.search(text):
        return {"trueup_code": TOO_LARGE}
    return {"trueup_code": "CONTENT_UNMOVABLE"} if fixed.search(text) else {}


def explain(database, text):
    """A Failure that names the table, where a dump that ended with these words met a row that is too large."""
    if _LOST.search(text):
        refuse_large_rows(database)


def refuse_large_rows(database, only=None):
    """A Failure where a table, one of ``only``, has a row that could not be loaded again from a dump."""
    session = sql.within(database)
    for name in sql.tables(database) if only is None else only:
        columns = session.rows(
            "SELECT column_name FROM information_schema.columns "
            f"WHERE table_schema = {sql.literal(database)} AND table_name = {sql.literal(name)}"
        )
        length = " + ".join(f"COALESCE(OCTET_LENGTH({sql.identifier(column)}), 0)" for (column,) in columns)
        if session.value(f"SELECT 1 FROM {sql.qualified(database, name)} WHERE {length} > {LONGEST_ROW} LIMIT 1"):
            raise too_large(database, name)


def too_large(database, table):
    return Failure(
        f"A row of table {table[:80]} of {database} is larger than {LONGEST_ROW >> 20} MB, which is the most that is "
        "backed up and copied. Remove it or make it smaller, and try again.",
        trueup_code=TOO_LARGE,
    )


def drained(stream):
    """The end of what a process says; a statement that answers without an end fills no memory."""
    kept = b""
    with stream:
        while block := stream.read(4096):
            kept = (kept + block)[-4096:]
    return kept
