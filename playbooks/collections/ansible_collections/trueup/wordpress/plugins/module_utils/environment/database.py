# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The environment's database and its user. Names come from the id alone, the password from wp-config.php.

Statements go to the client's standard input, so that no password is ever in a process list.
"""

from __future__ import annotations

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

CLIENT = ("mariadb", "--batch", "--skip-column-names", "--raw")


class Database:
    """What is there now, read in one query."""

    def __init__(self, run, layout):
        self.run = run
        self.name = layout.database
        self.draft = f"{layout.database}_install"
        name = self.name
        rows = self.root(
            f"SELECT 'database', COUNT(*) FROM information_schema.schemata WHERE schema_name = '{name}';"
            f"SELECT 'draft', COUNT(*) FROM information_schema.schemata WHERE schema_name = '{self.draft}';"
            f"SELECT 'user', COUNT(*) FROM mysql.global_priv WHERE User = '{name}' AND Host = 'localhost';"
            f"SELECT 'grant', COUNT(*) FROM mysql.db WHERE User = '{name}' AND Db = {literal(pattern(name))}"
            " AND CONCAT(Select_priv, Insert_priv, Create_priv, Drop_priv) = 'YYYY';"
            f"SELECT 'tables', COUNT(*) FROM information_schema.tables WHERE table_schema = '{name}';"
        )
        self.found = {key: int(value) for key, value in (row.split("\t") for row in rows.splitlines())}

    def root(self, statements):
        return self.run.command(CLIENT, text=statements, hint="MariaDB refused")

    @property
    def empty(self):
        return not self.found["tables"]

    def ensure(self, password):
        """Database, user and rights. An existing user's password stays as it is; see ``login``."""
        missing = [what for what in ("database", "user", "grant") if not self.found[what]]
        if missing and self.run.change(f"database {self.name}", "", "\n".join(missing)):
            self.root(
                f"CREATE DATABASE IF NOT EXISTS {self.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;"
                f"CREATE USER IF NOT EXISTS {self.name}@localhost IDENTIFIED BY '{password}';"
                f"GRANT ALL PRIVILEGES ON `{pattern(self.name)}`.* TO {self.name}@localhost;"
            )

    def login(self, password):
        """Make the password in wp-config.php the one that works; a user who was just made has it."""
        if not self.found["user"]:
            return
        try:
            self.ask(password, "SELECT 1;")
        except Failure:
            if self.run.change(f"password of database user {self.name}"):
                self.root(f"ALTER USER {self.name}@localhost IDENTIFIED BY '{password}';")

    def ask(self, password, query):
        """Rows of a query as the environment's own user asks it."""
        argv = [*CLIENT, f"--user={self.name}", self.name]
        environment = {"MYSQL_PWD": password}
        answer = self.run.command(
            argv, text=query, environment=environment, hint=f"Database {self.name} does not answer its user"
        )
        return [row.split("\t") for row in answer.splitlines()]

    # An installation is made in a database of its own and moved over whole

    def open_draft(self):
        self.root(
            f"DROP DATABASE IF EXISTS {self.draft};"
            f"CREATE DATABASE {self.draft} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;"
            f"GRANT ALL PRIVILEGES ON `{pattern(self.draft)}`.* TO {self.name}@localhost;"
        )

    def through_draft(self, statements, tables):
        """SQL that makes ``tables`` by ``statements`` of ours in the draft, and moves them over in one step."""
        moves = ", ".join(f"{self.draft}.`{name}` TO {self.name}.`{name}`" for name in tables)
        return (
            f"DROP DATABASE IF EXISTS {self.draft};"
            f"CREATE DATABASE {self.draft} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;"
            f"USE {self.draft};\n{statements}RENAME TABLE {moves}; DROP DATABASE {self.draft};\n"
        )

    def adopt_draft(self):
        """Move every table of the draft in one statement, which is one step even if the power goes."""
        tables = self.root(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{self.draft}';")
        moves = ", ".join(f"{self.draft}.`{name}` TO {self.name}.`{name}`" for name in tables.split())
        self.root(f"RENAME TABLE {moves};")
        self.close_draft()

    def close_draft(self):
        # REVOKE fails where the right is gone already, and this must not.
        self.root(
            f"DROP DATABASE IF EXISTS {self.draft};"
            f"GRANT ALL PRIVILEGES ON `{pattern(self.draft)}`.* TO {self.name}@localhost;"
            f"REVOKE ALL PRIVILEGES ON `{pattern(self.draft)}`.* FROM {self.name}@localhost;"
        )


def pattern(name):
    """In a grant an underscore stands for any character."""
    return name.replace("_", "\\_")


def literal(text):
    """A text as a statement may hold it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "")
    return f"'{escaped}'"
