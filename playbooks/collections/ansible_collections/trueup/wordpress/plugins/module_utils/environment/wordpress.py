# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""WordPress itself: its configuration with the secrets made here, its own tool, and its address."""

from __future__ import annotations

import re
import secrets

from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite import Rewriter
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite_tables import Changes, rewrite_in_use
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import place, sandbox
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read
from ansible_collections.trueup.wordpress.plugins.module_utils.sql import literal

SALTS = ("AUTH_KEY", "SECURE_AUTH_KEY", "LOGGED_IN_KEY", "NONCE_KEY")
SALTS += ("AUTH_SALT", "SECURE_AUTH_SALT", "LOGGED_IN_SALT", "NONCE_SALT")
SECRETS = ("DB_PASSWORD", *SALTS)

# WordPress probes its own permalinks when it is installed, which takes twenty seconds where its name leads elsewhere.
PERMALINKS = (
    'WP_CLI::add_wp_hook("populate_options", function() { add_option("permalink_structure", "/%postname%/"); });'
)
URLS = "option_name IN ('siteurl', 'home')"


class Configuration:
    """wp-config.php: the text from the controller, the secrets from the file that is there, or new ones."""

    def __init__(self, layout, template):
        self.layout = layout
        found = (read(layout.wp_config) or b"").decode("utf-8", "replace")
        self.secrets = {name: _secret(found, name) for name in SECRETS}
        self.text = template
        for name, value in self.secrets.items():
            self.text = self.text.replace(f"@{name}@", value)

    @property
    def password(self):
        return self.secrets["DB_PASSWORD"]

    def ensure(self, run, user):
        return place.file(
            run, self.layout.wp_config, self.text, mode=0o640, gid=user.pw_gid if user else 0, shown=_without_secrets
        )


def _secret(text, name):
    """The secret in a configuration, if it is one of ours; else a new one."""
    found = re.search(rf"^define\( '{name}', '([A-Za-z0-9_-]{{32,}})' \);$", text, re.MULTILINE)
    return found.group(1) if found else secrets.token_urlsafe(48)


def _without_secrets(text):
    names = "|".join(SECRETS)
    return re.sub(rf"^(\s*define\(\s*['\"](?:{names})['\"]\s*,).*$", r"\1 … );", text, flags=re.MULTILINE)


def command(layout, *arguments):
    """WP-CLI for the release, as an argv."""
    return tool(layout.release, *arguments)


def tool(tree, *arguments):
    """WP-CLI as an argv. Plugins and themes stay out: what they break is not in the way."""
    return [
        "/usr/bin/php",
        "-d",
        f"disable_functions={sandbox.DISABLED_FUNCTIONS}",
        "/usr/local/bin/wp",
        f"--path={tree}",
        "--skip-plugins",
        "--skip-themes",
        "--no-color",
        *arguments,
    ]


def install_tool(tree, url, content, code=""):
    """WP-CLI as an argv that installs WordPress; ``content`` as in the role's variable, ``code`` in PHP goes first."""
    return [
        *tool(tree, "core", "install", "--skip-email"),
        f"--url={url}",
        f"--title={content['title']}",
        f"--admin_user={content['admin_user']}",
        f"--admin_email={content['admin_email']}",
        *([f"--locale={content['locale']}"] if content["locale"] != "en_US" else []),
        f"--exec={code} {PERMALINKS}",
    ]


def environment(layout):
    return tool_environment(layout.tmp)


def tool_environment(directory):
    """Nothing that lies in the site's own directories configures WP-CLI."""
    return {"WP_CLI_CONFIG_PATH": "/dev/null", "WP_CLI_CACHE_DIR": directory, "HOME": directory, "TMPDIR": directory}


def database_version(release):
    """The version of the tables that the code of a release expects."""
    with open(f"{release}/wp-includes/version.php", encoding="utf-8", errors="replace") as file:
        found = re.search(r"^\$wp_db_version = (\d+);", file.read(), re.MULTILINE)
    return found.group(1) if found else None


def upgrade(run, layout):
    """Bring the tables to what the release expects."""
    sandbox.ask(
        run,
        layout,
        command(layout, "core", "update-db"),
        environment=environment(layout),
        hint="WordPress did not upgrade its tables",
    )


def refuse_foreign_tables(database, password):
    """A database that was filled by somebody else must hold a WordPress; it is kept as it is."""
    try:
        rows = database.ask(password, f"SELECT option_name FROM wp_options WHERE {URLS};")
    except Failure as error:
        raise Failure(
            f"Database {database.name} has tables, but no WordPress with prefix wp_, so nothing is installed over "
            f"them. Move them away or drop them, and run again. ({error})"
        ) from error
    if not rows:
        raise Failure(f"Table wp_options of {database.name} names no site address. Repair it, and run again.")


def move_address(run, database, password, before, after, undo):
    """Another address: content follows while it is in use, WordPress's own two last; whether anything had to change."""
    stale = f"{URLS} AND option_value = {literal(before)}"
    rows = database.ask(password, f"SELECT option_name FROM wp_options WHERE {stale};")
    if rows and not run.change(f"address of {database.name}", before, after):
        return True
    rewriter = Rewriter([(before, after)])
    changes = Changes() if run.check_mode else rewrite_in_use(database.name, rewriter, undo)
    run.notes += changes.notes()
    if rows:
        database.ask(password, f"UPDATE wp_options SET option_value = {literal(after)} WHERE {stale};")
    return bool(rows or changes.counts)
