# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes a seed: WordPress installs itself once, in a database and a directory that nobody reaches and that then go.

What runs is the pristine core, WP-CLI and our own plugin, as a user who owns nothing: no site has a part in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core, seed, wordpress
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import identifier, literal, pattern

LOCK = "/run/trueup/locks/seed"
LOCK_S = 20
PLACE = "/run/trueup/seed"
DATABASE = "trueup_seed"
USER = "nobody"
NUMBERS = frozenset(("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double"))
MADE_BY = ("/usr/sbin/mariadbd", "/usr/local/bin/wp")
"""What a seed depends on besides WordPress: another file is another seed."""

CONFIGURATION = """<?php
define( 'DB_NAME', '{database}' );
define( 'DB_USER', '{database}' );
define( 'DB_PASSWORD', getenv( 'TRUEUP_SEED_PASSWORD' ) );
define( 'DB_HOST', 'localhost' );
define( 'DB_CHARSET', 'utf8mb4' );
define( 'DB_COLLATE', '' );
$table_prefix = 'wp_';
{salts}
define( 'WP_ENVIRONMENT_TYPE', '{type}' );
define( 'TRUEUP_ENVIRONMENT', '{type}' );
define( 'TRUEUP_MAIL_LOG', '/dev/null' );
define( 'WP_HTTP_BLOCK_EXTERNAL', true );
define( 'DISABLE_WP_CRON', true );
define( 'FORCE_SSL_ADMIN', {secure} );
if ( FORCE_SSL_ADMIN ) {{
	$_SERVER['HTTPS'] = 'on';
}}
require_once ABSPATH . 'wp-settings.php';
"""


def facts_of(variables, plugin_digest):
    """What a seed for this environment is made of, as JSON data."""
    return {
        "format": seed.FORMAT,
        "version": variables["wordpress_version"],
        "locale": variables["content"]["locale"],
        "scheme": variables["url"].partition("://")[0],
        "type": "production" if variables["type"] == "production" else "staging",
        "plugin": plugin_digest,
        "permalinks": wordpress.PERMALINKS,
        "made_by": [[path, os.stat(path).st_size, os.stat(path).st_mtime_ns] for path in MADE_BY],
    }


def ready(run, of, plugin):
    """The seed that is made of this, made now where there is none; None where WordPress has to install itself."""
    try:
        found = seed.load(of)
        return found or _make_in_turn(run, of, plugin)
    except (Failure, OSError, ValueError, KeyError, TypeError) as error:
        run.notes.append(f"No seed of WordPress {of['version']} was made, so it installs itself: {error}")
        return None


def _make_in_turn(run, of, plugin):
    """Of several runs one makes it."""
    os.makedirs(os.path.dirname(LOCK), mode=0o700, exist_ok=True)
    with open(LOCK, "w") as lock:
        _wait_for(lock)
        found = seed.load(of)
        if found:
            return found
        inherited = run.inherited
        run.inherited = (*inherited, lock.fileno())
        try:
            made = _make(run, of, plugin)
        finally:
            run.inherited = inherited
        try:
            seed.keep(of, made)
        except OSError as error:
            run.notes.append(f"The seed of WordPress {of['version']} was used, but cannot be kept: {error}")
    return made


def _wait_for(lock):
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Failure(f"Another run has been making it for more than {LOCK_S} seconds.") from None
        time.sleep(0.02)


def _make(run, of, plugin):
    password = secrets.token_urlsafe(32)
    user = pwd.getpwnam(USER)
    try:
        _place(of, plugin, user)
        _forget()
        sql.make_anew(DATABASE)
        sql.root().say(
            f"CREATE USER {DATABASE}@localhost IDENTIFIED BY {sql.quoted(password)}",
            f"GRANT ALL PRIVILEGES ON {identifier(pattern(DATABASE))}.* TO {DATABASE}@localhost",
        )
        _install(run, of, user, password)
        with sql.Session(DATABASE, password, DATABASE) as session:
            made = _seed(session)
    finally:
        shutil.rmtree(PLACE, ignore_errors=True)
        with contextlib.suppress(Failure):
            _forget()
    if flaw := made.flaw():
        raise Failure(f"What WordPress made is no seed: {flaw}.")
    return made


def _place(of, plugin, user):
    """A WordPress of links to the pristine core, with our plugin and a configuration."""
    shutil.rmtree(PLACE, ignore_errors=True)
    tree, source = f"{PLACE}/wordpress", core.pristine(of["version"])
    os.makedirs(f"{tree}/wp-content/mu-plugins")
    os.mkdir(f"{PLACE}/tmp", 0o700)
    os.chown(f"{PLACE}/tmp", user.pw_uid, user.pw_gid)
    for name in os.listdir(source):
        if name != "wp-content":
            os.symlink(f"{source}/{name}", f"{tree}/{name}")
    for name in ("plugins", "themes"):
        os.symlink(f"{source}/wp-content/{name}", f"{tree}/wp-content/{name}")
    _write(f"{tree}/wp-content/mu-plugins/trueup.php", plugin)
    salts = "\n".join(f"define( '{name}', '{secrets.token_urlsafe(48)}' );" for name in wordpress.SALTS)
    secure = "true" if of["scheme"] == "https" else "false"
    text = CONFIGURATION.format(database=DATABASE, salts=salts, type=of["type"], secure=secure)
    _write(f"{tree}/wp-config.php", text)


def _write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _install(run, of, user, password):
    content = {
        "title": seed.TITLE,
        "admin_user": seed.ADMIN_USER,
        "admin_email": seed.ADMIN_EMAIL,
        "locale": of["locale"],
    }
    argv = wordpress.install_tool(f"{PLACE}/wordpress", f"{of['scheme']}://{seed.HOST}", content)
    environment = {"TRUEUP_SEED_PASSWORD": password, **wordpress.tool_environment(f"{PLACE}/tmp")}
    run.command(argv, user=user, environment=environment, hint="WordPress was not installed")


def _seed(session):
    """The tables as they are now."""
    rows = session.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        f"WHERE table_schema = {literal(DATABASE)} ORDER BY table_name, ordinal_position"
    )
    columns = {}
    for table, name, kind in rows:
        columns.setdefault(table, []).append([name, kind in NUMBERS])
    return seed.Seed([_table(session, name, columns[name]) for name in sorted(columns)])


def _table(session, name, columns):
    create = session.rows(f"SHOW CREATE TABLE {identifier(name)}")[0][1]
    cells = ", ".join(identifier(column) for column, _ in columns)
    answer = session.raw(f"SELECT {cells} FROM {identifier(name)} ORDER BY {identifier(columns[0][0])}")
    rows = [[None if cell is None else cell.decode("utf-8") for cell in row] for row in answer]
    return {"name": name, "create": create, "columns": columns, "rows": rows}


def _forget():
    sql.drop(DATABASE)
    sql.root().say(f"DROP USER IF EXISTS {DATABASE}@localhost")
