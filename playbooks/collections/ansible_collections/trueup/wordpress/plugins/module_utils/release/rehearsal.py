# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A release tried on a throwaway copy: its files and the database once more, with a PHP of its own, and nobody visits.

The copy reaches nobody either: no network, no mail, no cache, no file of the site but its own; uploads can be read.
What is left when a run is killed ends with the run's scope, or after some minutes, and the next run removes it.
"""

from __future__ import annotations

import os
import re
import secrets
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.domains import address_of
from ansible_collections.trueup.wordpress.plugins.module_utils.content.snapshot import Snapshot, copy_database
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import health, wordpress
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.bridge import moved_pool, moved_unit
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read, write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

UNHEALTHY = "UPDATE_UNHEALTHY"
LONGEST_S = 1200
UPGRADE_S = 600
UNITS = "/run/systemd/system"
PAGES = (("/", "/index.php"), ("/", "/index.php"), ("/wp-login.php", "/wp-login.php"))
"""Twice the home page: what an update does at its first request is seen by the second."""
IN_COPY = r"/var/www/sites/[0-9a-f-]{36}/rehearsal/tree/"
AJAX = "/wp-admin/admin-ajax.php"
"""With an action that nobody knows: what plugins do in the administration runs without a login, the answer is 400."""


class Rehearsal:
    kind = "rehearsal"
    """Part of the names of all that it makes."""
    doing = "rehearsing an update"

    def __init__(self, run, layout, variables, user):
        self.run = run
        self.layout = layout
        self.variables = variables
        self.user = user
        self.directory = f"{layout.site}/{self.kind}"
        self.tree = f"{self.directory}/tree"
        self.database = f"{layout.database}_{self.kind}"
        self.password = secrets.token_hex(24)
        self.unit = f"trueup-{self.kind}-{layout.short}.service"
        self.sockets = f"trueup-{self.kind}-{layout.short}"
        self.socket = f"/run/{self.sockets}/fpm.sock"
        self.migration = Snapshot(run, layout).migration

    def hold(self, scope):
        """Raise Failure (``UPDATE_UNHEALTHY``) unless the release is healthy on the copy; the copy goes either way.

        What its code changed in the tables stays, for the day on which that has to be taken out of those in use.
        """
        self.throw_away()
        try:
            self._copy_files()
            self._copy_database()
            self.migration.begin(self.database)
            self._start(scope)
            self._try()
            self.migration.record(self.database, self.layout.release_id)
        except (Failure, OSError, ValueError):
            self.throw_away()
            raise
        self._throw_away()

    def throw_away(self):
        """The copy, and what was learned of it."""
        self._throw_away()
        self.migration.forget()

    def _throw_away(self):
        unit = f"{UNITS}/{self.unit}"
        if os.path.exists(unit):
            self.run.command(["systemctl", "stop", self.unit], hint=f"The {self.kind}'s PHP did not stop")
            os.unlink(unit)
            self.run.command(["systemctl", "daemon-reload"])
        sql.drop(self.database)
        sql.root().say(f"DROP USER IF EXISTS {sql.identifier(self.database)}@localhost")
        # The last to go: as long as it is there, the next run knows that something is left.
        paths.remove(self.directory)

    def is_left(self):
        """Whether a killed run left something."""
        return os.path.isdir(self.directory) or os.path.exists(f"{UNITS}/{self.unit}")

    # The copy

    def _copy_files(self):
        release = self.layout.release
        paths.directory(self.tree)
        self._make_work_directories()
        for name in paths.names(release):
            if name != "wp-config.php":
                paths.copy(f"{release}/{name}", f"{self.tree}/{name}", keep=self.user.pw_uid)
        with paths.at(self.tree) as (tree, name):
            for path in ("wp-content", "wp-content/mu-plugins"):
                tree.set(f"{name}/{path}", 0o1775, 0, self.user.pw_gid)
        self._configure()

    def _make_work_directories(self):
        for name in ("tmp", "logs"):
            paths.directory(f"{self.directory}/{name}", 0o700, self.user.pw_uid, self.user.pw_gid)

    def _configure(self):
        values = {
            # A user of its own: the copy cannot reach the tables that visitors use.
            "DB_NAME": self.database,
            "DB_USER": self.database,
            "DB_PASSWORD": self.password,
            "WP_ENVIRONMENT_TYPE": "staging",
            "WP_TEMP_DIR": f"{self.directory}/tmp",
            "WP_CACHE_KEY_SALT": f"{self.layout.id}-{self.kind}:",
            "TRUEUP_ENVIRONMENT": "clone",
            "TRUEUP_MAIL_LOG": f"{self.directory}/logs/mail.log",
        }
        text = (read(self.layout.wp_config) or b"").decode("utf-8")
        write_durably(f"{self.tree}/wp-config.php", _defined(text, values).encode(), 0o640, gid=self.user.pw_gid)

    def _copy_database(self):
        self._make_user(copy_database(self.run, self.layout.database, self.database))

    def _make_user(self, objects):
        """The copy's own, who makes what lies beside its tables."""
        who = f"{sql.identifier(self.database)}@localhost"
        sql.root().say(
            f"CREATE USER {who} IDENTIFIED BY {sql.quoted(self.password)} WITH MAX_USER_CONNECTIONS 20",
            f"GRANT ALL PRIVILEGES ON {sql.identifier(sql.pattern(self.database))}.* TO {who}",
        )
        with sql.Session(self.database, self.password, self.database) as session:
            objects.make(session, self.database, acting=False)

    # Its PHP

    def _start(self, scope):
        pool = f"{self.directory}/php-fpm.conf"
        write_durably(pool, self._pool().encode(), 0o644)
        write_durably(f"{UNITS}/{self.unit}", self._service(pool, scope).encode(), 0o644)
        self.run.command(["systemctl", "daemon-reload"])
        self.run.command(["systemctl", "start", self.unit], hint=f"The {self.kind}'s PHP did not start")

    def _pool(self):
        """The environment's own pool, elsewhere, with the time that an upgrade takes and without a way to send mail."""
        text = (read(self.layout.pool) or b"").decode("utf-8")
        text = moved_pool(text, self.socket)
        text = _replaced(text, r"^request_terminate_timeout = .*$", "request_terminate_timeout = 0")
        text = _replaced(text, r"^(php_admin_value\[max_execution_time\]) = .*$", r"\1 = 0")
        # Of a pool that an earlier version wrote: it knows nothing of the copy.
        text = re.sub(r"^php_admin_value\[open_basedir\].*\n", "", text, flags=re.MULTILINE)
        text = text.replace(self.layout.tmp, f"{self.directory}/tmp")
        text = re.sub(r"^php_admin_value\[sendmail_path\].*\n", "", text, flags=re.MULTILINE)
        return f"{text}\nphp_admin_value[sendmail_path] = /bin/false\n"

    def _service(self, pool, scope):
        """The environment's own unit, whose sandbox holds the copy, and of the site what can only be read."""
        layout = self.layout
        text = (read(layout.unit_file(layout.php_service)) or b"").decode("utf-8")
        text = moved_unit(text, pool, self.sockets)
        binds = f"{self._binds()}\nInaccessiblePaths=-/run/trueup-redis"
        text = _replaced(text, rf"^BindPaths={re.escape(layout.site)}$", binds)
        text = _replaced(text, r"^Restart=.*$", f"Restart=no\nRuntimeMaxSec={LONGEST_S}\nPrivateNetwork=yes")
        # Nobody waits for what is tried: it ends at once.
        text = text.replace("KillSignal=SIGQUIT\n", "")
        bound = f"\nBindsTo={scope}" if scope else ""
        return _replaced(text, r"^(Description=.*)$", rf"\1, {self.doing}{bound}")

    def _binds(self):
        return f"BindPaths={self.directory}\nBindReadOnlyPaths={self.layout.shared}"

    # What is tried

    def _try(self):
        self._upgrade()
        host = address_of(self.variables)
        for uri, script in PAGES:
            answer = self._ask(uri, script)
            if why := health.flaw(answer):
                raise _unhealthy(f"{uri} on {host} {why}")
        answer = self._ask(f"{AJAX}?action=trueup_rehearsal", AJAX)
        fatal = health.FATAL.search(answer.errors)
        if fatal or answer.status >= 500:
            said = f"ends in a fatal error: {fatal.group(1)}" if fatal else f"answers {answer.status}"
            raise _unhealthy(f"the administration {said}")

    def _upgrade(self):
        """The tables follow the code, as when an administrator presses the button."""
        wanted = wordpress.database_version(self.layout.release)
        if self._database_version() == wanted:
            return
        answer = self._ask("/wp-admin/upgrade.php?step=upgrade_db", "/wp-admin/upgrade.php", UPGRADE_S)
        fatal = health.FATAL.search(answer.errors)
        if fatal:
            raise _unhealthy(f"the upgrade of the tables ends in a fatal error: {fatal.group(1)}")
        if answer.status != 200 or self._database_version() != wanted:
            raise _unhealthy(f"the upgrade of the tables answers {answer.status} and did not reach version {wanted}")

    def _database_version(self):
        session = sql.within(self.database)
        sql.needed_table(session, self.database, "wp_options")
        table = sql.qualified(self.database, "wp_options")
        return session.value(f"SELECT LEFT(option_value, 20) FROM {table} WHERE option_name = 'db_version'")

    def _ask(self, uri, script, timeout_s=health.TIMEOUT):
        deadline = time.monotonic() + timeout_s
        try:
            return health.ask(
                self.socket, self.layout.user, self.tree, address_of(self.variables), uri, script, timeout_s
            )
        except (OSError, ValueError) as error:
            late = f" within {timeout_s} s" if time.monotonic() >= deadline else ""
            raise _unhealthy(f"{uri} gives no answer{late} ({error})") from error


def leave_nothing(run, layout):
    """Remove what a killed rehearsal left, if there is anything."""
    rehearsal = Rehearsal(run, layout, {}, None)
    if not run.check_mode and rehearsal.is_left():
        rehearsal.throw_away()


def _unhealthy(what):
    return Failure(
        f"The update was rehearsed on a copy, and there {re.sub(IN_COPY, '', what)}. Nothing was changed. What the "
        "message names has to wait for its next version, or go.",
        trueup_code=UNHEALTHY,
    )


def _defined(text, values):
    for name, value in values.items():
        text = _replaced(text, rf"define\( '{name}', '[^']*' \);", f"define( '{name}', '{value}' );")
    return text


def _replaced(text, expression, by):
    found, count = re.subn(expression, by, text, flags=re.MULTILINE)
    if count != 1:
        raise Failure(f"The environment's own configuration has {count} of {expression!r}, not one. Apply it first.")
    return found
