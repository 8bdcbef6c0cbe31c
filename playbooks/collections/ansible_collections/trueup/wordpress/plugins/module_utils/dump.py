# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Databases as streams of SQL, for which there are processes: who prints one may read it alone, who loads one may fill
one alone.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

READ = "SELECT, SHOW VIEW, TRIGGER"

# Of the client's own commands none is run, whatever a stream says; the server cannot ask for files of this host.
CLIENT = ("mariadb", "--no-defaults", "--batch", "--binary-mode", "--sandbox", "--local-infile=0")
CLIENT += ("--default-character-set=utf8mb4", "--max-allowed-packet=1G")
DUMP = ("mariadb-dump", "--no-defaults", "--single-transaction", "--quick", "--hex-blob", "--skip-comments")
DUMP += ("--default-character-set=utf8mb4", "--no-tablespaces", "--skip-dump-date", "--max-allowed-packet=1G")
"""Reads one moment of a database and locks nothing. No comments: a name with a line break would end one."""

_FIXED = re.compile(r"(?:CREATE VIEW|TRIGGER) command denied|ERROR 1449 |the .*SET USER.* privilege")


def reader(database):
    """What a dump is started with: arguments and environment of a user who may read this database alone."""
    return sql.account(database, database, "r", {database: READ}).credentials


def filler(database):
    """What a client is started with that loads a dump: a user who may fill this database alone."""
    return sql.account(database, database, "f", {database: sql.FILL}).credentials


def started(run, database, *options):
    """A process that prints a database."""
    arguments, environment = reader(database)
    return run.start([*DUMP, *arguments, *options, database], environment=environment)


def load(run, process, database, *, hint):
    """What ``process`` prints goes into a database; a Failure when either of the two fails."""
    arguments, environment = filler(database)
    writer = run.start([*CLIENT, *arguments, database], environment=environment, feed=process.stdout)
    if process.stdin:
        process.stdin.close()
    process.stdout.close()
    with ThreadPoolExecutor(3) as pool:
        said = b"".join(pool.map(drained, (writer.stdout, writer.stderr, process.stderr)))
    status = [process.wait(), writer.wait()]
    if any(status):
        text = said.decode("utf-8", "replace").strip()[-sql.LONGEST_MESSAGE :]
        # A definer that is not there, or is somebody else: what only views, triggers and routines have.
        code = {"trueup_code": "CONTENT_UNMOVABLE"} if _FIXED.search(text) else {}
        raise Failure(f"{hint} (exit status {status}): {text}", **code)


def drained(stream):
    """The end of what a process says; a statement that answers without an end fills no memory."""
    kept = b""
    with stream:
        while block := stream.read(4096):
            kept = (kept + block)[-4096:]
    return kept
