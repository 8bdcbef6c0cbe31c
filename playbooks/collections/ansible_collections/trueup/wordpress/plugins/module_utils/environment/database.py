# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The environment's database and its user. Names come from the id alone, the password from wp-config.php."""

from __future__ import annotations

import time

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal, pattern

ROOM = 10
"""Connections beside those of PHP's workers: of cron, of WP-CLI, of whoever looks at the site."""


END_S = 600
"""The longest that is waited for a statement that has to be undone."""


class Database:
    """What is there now, read in one query. ``most``: connections that its user may have at once."""

    def __init__(self, run, layout, most=None):
        self.run = run
        self.name = layout.database
        self.draft = f"{layout.database}_install"
        self.most = most
        self._own = {}
        name, draft = literal(self.name), literal(self.draft)
        user = f"User = {name} AND Host = 'localhost'"
        rows = sql.root().rows(
            f"SELECT 'database', COUNT(*) FROM information_schema.schemata WHERE schema_name = {name} UNION ALL "
            f"SELECT 'draft', COUNT(*) FROM information_schema.schemata WHERE schema_name = {draft} UNION ALL "
            f"SELECT 'user', COUNT(*) FROM mysql.global_priv WHERE {user} UNION ALL "
            "SELECT 'connections', COALESCE(MAX(JSON_VALUE(Priv, '$.max_user_connections')), 0) "
            f"FROM mysql.global_priv WHERE {user} UNION ALL "
            f"SELECT 'grant', COUNT(*) FROM mysql.db WHERE {user} AND Db = {literal(pattern(self.name))}"
            " AND CONCAT(Select_priv, Insert_priv, Create_priv, Drop_priv) = 'YYYY' UNION ALL "
            f"SELECT 'runs', COUNT(*) FROM mysql.global_priv WHERE {sql.of_runs(layout.short)} UNION ALL "
            f"SELECT 'tables', COUNT(*) FROM information_schema.tables WHERE table_schema = {name}"
        )
        self.found = {key: int(value) for key, value in rows}
        if self.found["runs"] and not run.check_mode:
            sql.forget_killed(layout.short)

    @property
    def who(self):
        return f"{identifier(self.name)}@localhost"

    @property
    def empty(self):
        return not self.found["tables"]

    def ensure(self, password):
        """Database, user and rights. An existing user's password stays as it is; see ``login``."""
        missing = [what for what in ("database", "user", "grant") if not self.found[what]]
        if missing and self.run.change(f"database {self.name}", "", "\n".join(missing)):
            sql.root().say(
                f"CREATE DATABASE IF NOT EXISTS {identifier(self.name)} {sql.AS_OURS}",
                f"CREATE USER IF NOT EXISTS {self.who} IDENTIFIED BY {sql.quoted(password)}",
                f"GRANT ALL PRIVILEGES ON {identifier(pattern(self.name))}.* TO {self.who}",
            )
        self._bound()

    def _bound(self):
        """One site does not take the connections of all."""
        found, most = self.found["connections"], self.most
        if most and found != most and self.run.change(f"connections of {self.name}", str(found or ""), str(most)):
            sql.root().say(f"ALTER USER {self.who} WITH MAX_USER_CONNECTIONS {int(most)}")

    def login(self, password):
        """Make the password in wp-config.php the one that works; a user who was just made has it."""
        if not self.found["user"]:
            return
        try:
            self.ask(password, "SELECT 1")
        except Failure:
            if self.run.change(f"password of database user {self.name}"):
                sql.root().say(f"ALTER USER {self.who} IDENTIFIED BY {sql.quoted(password)}")

    def ask(self, password, query):
        """Rows of a query as the environment's own user asks it, as texts: the first, where there is no end."""
        try:
            if password not in self._own:
                self._own[password] = sql.Session(self.name, password, self.name)
            own = self._own[password]
            return own.few(query) if query.startswith("SELECT") else own.rows(query)
        except Failure as error:
            self._own.pop(password, None)
            raise Failure(f"Database {self.name} does not answer its user: {error}") from error

    # An installation is made in a database of its own and moved over whole

    def open_draft(self):
        sql.make_anew(self.draft)
        sql.root().say(f"GRANT ALL PRIVILEGES ON {identifier(pattern(self.draft))}.* TO {self.who}")

    def through_draft(self, statements, tables):
        """Statements that make ``tables`` by ``statements`` of ours in the draft, and move them over in one step."""
        moves = ", ".join(f"{sql.qualified(self.draft, name)} TO {sql.qualified(self.name, name)}" for name in tables)
        return [
            f"DROP DATABASE IF EXISTS {identifier(self.draft)}",
            f"CREATE DATABASE {identifier(self.draft)} {sql.AS_OURS}",
            f"USE {identifier(self.draft)}",
            *statements,
            f"RENAME TABLE {moves}",
            f"DROP DATABASE {identifier(self.draft)}",
        ]

    def adopt_draft(self):
        """Move every table of the draft in one statement, which is one step even if the power goes."""
        sql.move([(self.draft, self.name, name) for name in sql.tables(self.draft)])
        self.close_draft()

    def close_draft(self):
        # REVOKE fails where the right is gone already, and this must not.
        rights = f"ALL PRIVILEGES ON {identifier(pattern(self.draft))}.*"
        sql.drop(self.draft)
        sql.root().say(f"GRANT {rights} TO {self.who}", f"REVOKE {rights} FROM {self.who}")


def end_connections(database):
    """End what the environment's own user asks of its database; returns when nothing of it is under way."""
    root, deadline = sql.root(), time.monotonic() + END_S
    query = f"SELECT COUNT(*) FROM information_schema.processlist WHERE user = {literal(database)}"
    while root.value(query) != "0":
        root.say(f"KILL USER {identifier(database)}@localhost")
        if time.monotonic() > deadline:
            raise Failure(f"A statement of database user {database} does not end. Look at the processes of MariaDB.")
        time.sleep(0.02)
    sql.end_prepared()
