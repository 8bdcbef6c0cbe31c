# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A dump loaded into the draft database by a user who has rights there alone, and made into what a site here has."""

from __future__ import annotations

import contextlib
import signal
import threading

from ansible_collections.trueup.wordpress.plugins.module_utils import dump as dumps
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.content import stored_objects
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import site_addresses
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.site_import.sql import Dump, refused
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literal, qualified

SESSION = b"SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0, unique_checks = 0;\n"
BLOCK = 1 << 18
LONGEST_S = 1200
_KEYS = ("capabilities", "user_level", "user-settings", "user-settings-time", "dashboard_quick_press_last_post_id")


def load(run, database, path, prefix):
    """The dump's tables in ``database``, their prefix made ``wp_``: names of the tables that had another one, and the
    StoredObjects that go with them.
    """
    arguments, environment = dumps.owner(database)
    _fill(run, [*dumps.CLIENT, *arguments, database], environment, path)
    dumps.refuse_large_rows(database)
    # A view would be told of the names that its tables had.
    objects = stored_objects.take(database).at_home(sql.tables(database))
    foreign, moved = _named_as_here(database, prefix)
    return foreign, _moved(objects, prefix, moved)


def _moved(objects, prefix, moved):
    """The same with the names that tables have here; what is called like the site's tables is, too."""
    if not objects or prefix == "wp_":
        return objects
    if not prefix:
        raise refused(
            "has views, triggers or routines and tables without a prefix, whose names could be any word. Give the "
            "tables a prefix before they are exported, or take those out"
        )
    names = {one.name: "wp_" + one.name[len(prefix) :] for one in objects.objects if one.name.startswith(prefix)}
    return objects.with_names({**names, **moved})


def _fill(run, argv, environment, path):
    # A client that waits for the server must not wait for ever; it is ended with all that it has.
    process = run.start(argv, environment=environment)
    timer = threading.Timer(LONGEST_S, process.send_signal, [signal.SIGKILL])
    timer.daemon = True
    timer.start()
    drained = threading.Thread(target=dumps.drained, args=(process.stdout,), daemon=True)
    drained.start()
    said = []
    listener = threading.Thread(target=lambda: said.append(dumps.drained(process.stderr)), daemon=True)
    listener.start()
    try:
        # If it ends early, its own words, below, say why.
        with contextlib.suppress(BrokenPipeError):
            _write(process, path)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        status = process.wait()
        timer.cancel()
        drained.join()
        listener.join()
    if status == -signal.SIGKILL:
        raise refused(f"was not loaded within {LONGEST_S} s")
    if status:
        text = said[0].decode("utf-8", "replace").strip()[-600:]
        if dumps.code_of(text).get("trueup_code") == dumps.TOO_LARGE:
            raise Failure(
                f"The archive's db.sql has a statement of more than {sql.PACKET >> 20} MB: a row is larger than "
                f"{dumps.LONGEST_ROW >> 20} MB. Nothing was changed.",
                trueup_code=dumps.TOO_LARGE,
            )
        raise refused(f"was not taken by MariaDB: {text}")


def _write(process, path):
    dump = Dump()
    process.stdin.write(SESSION)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            process.stdin.write(dump.feed(block))
    process.stdin.write(dump.end())
    process.stdin.write(b"\nCOMMIT;\n")


def _named_as_here(database, prefix):
    names = sql.tables(database)
    ours = [name for name in names if name.startswith(dumps.OURS)]
    session = sql.within(database)
    session.say(*(f"DROP TABLE {qualified(database, name)}" for name in ours))
    names = [name for name in names if name not in ours]
    foreign = [name for name in names if not name.startswith(prefix)]
    if prefix == "wp_":
        return foreign, {}
    moved = {name: "wp_" + name[len(prefix) :] for name in names if name.startswith(prefix)}
    taken = set(moved.values()) & set(foreign)
    if taken:
        raise refused(f"has tables {', '.join(sorted(taken)[:5])} beside those with prefix {prefix!r}. Take them out")
    steps = ", ".join(f"{qualified(database, old)} TO {qualified(database, new)}" for old, new in moved.items())
    session.say(f"RENAME TABLE {steps}")
    _say(database, *_renamed_keys(database, prefix))
    return foreign, moved


def _renamed_keys(database, prefix):
    """Roles, and what users may and like, are found by the prefix too."""
    cut = len(prefix) + 1
    options, meta = qualified(database, "wp_options"), qualified(database, "wp_usermeta")
    begins = f"LEFT(meta_key, {len(prefix)}) = BINARY {literal(prefix)}"
    if not prefix:
        begins = f"meta_key IN ({sql.literals(_KEYS)})"
    return (
        f"DELETE FROM {options} WHERE option_name = 'wp_user_roles'",
        f"UPDATE {options} SET option_name = 'wp_user_roles' WHERE option_name = {literal(prefix + 'user_roles')}",
        f"UPDATE {meta} SET meta_key = CONCAT('wp_', SUBSTRING(meta_key, {cut})) WHERE {begins}",
    )


def _say(database, *statements):
    with sql.opened(database) as session:
        session.say("SET SESSION sql_mode = ''", *statements)


def addresses(database):
    """What the imported site says it is: ``siteurl`` and ``home``."""
    try:
        found = [row.rstrip("/") for row in site_addresses(database)]
    except Failure as error:
        raise refused(f"has a table of options that cannot be read: {error}") from error
    found = [row for row in found if row.startswith(("http://", "https://"))]
    if not found:
        raise refused("names no address of the site (options siteurl and home). Export it again")
    return list(dict.fromkeys(found))


def settle(database, url):
    """The address, last: what was rewritten may have had a path that this one lacks."""
    options = qualified(database, "wp_options")
    where = "option_name IN ('siteurl', 'home')"
    _say(database, f"UPDATE {options} SET option_value = {literal(url)} WHERE {where}")
