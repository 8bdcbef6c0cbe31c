# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether environments of this node serve, looked at as they are: nothing is changed, nothing is put right.

Three checks an environment: its home page answers 200, WordPress's own tool finds it installed, its database answers
its user. Each may take ten seconds, or what the environment's variable says, and what fails is tried once more. Of an
environment that is unhealthy, its release and the one before it are asked on their private addresses too, side by side,
so that whoever decides knows whose fault it is: a release that is as slow as the other is not at fault.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.trueup.wordpress.plugins.module_utils import driver, dump, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import health, sandbox, wordpress
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read

AT_ONCE = 4
"""Environments that are looked at side by side: a few that hang must not hold up the others."""
RETRY_SECONDS = 1.0
SPARE_SECONDS = 2
"""How much later than systemd a command is given up here, which leaves what systemd began running."""
MAINTENANCE_SECONDS = 600
"""After so long WordPress itself takes a `.maintenance` file for one that an update forgot."""


def look(ids):
    """What was found, by environment id."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(ids, pool.map(lambda one: Look(one).found(), ids)))  # noqa: B905 - not in Python 3.9


class Look:
    """One look at one environment."""

    def __init__(self, environment_id):
        self.layout = Layout(environment_id)
        self.manifest = _manifest(self.layout.manifest)
        self.release = os.path.basename(os.path.realpath(self.layout.current))

    def found(self):
        """``release health reason checks`` (None: that check is well), of an unhealthy one ``alone previous`` too."""
        unknown = self._unknown()
        if unknown:
            return {"release": self.release, "health": "unknown", "reason": unknown, "checks": {}}
        checks = self._checks()
        reasons = [said for said in checks.values() if said]
        found = {"release": self.release, "checks": checks, "reason": " ".join(reasons) or None}
        if not reasons:
            return {**found, "health": "healthy"}
        before = self._before()
        previous = before and {"release": before, "answers": self._answers(before)}
        alone = self._answers(self.release, beside=before)
        return {**found, "health": "unhealthy", "alone": alone, "previous": previous}

    def _unknown(self):
        """Why nothing can be said now."""
        if self.manifest is None:
            return "The environment was never applied whole on this node."
        if os.path.exists(self.layout.pending):
            return "Something is being applied to the environment, or was and did not end."
        if _is_recent(f"{self.layout.current}/.maintenance"):
            return "WordPress is in maintenance mode."
        return None

    def _checks(self):
        kinds = {"page": self._page, "wordpress": self._wordpress, "database": self._database}
        with ThreadPoolExecutor(len(kinds)) as pool:
            return dict(zip(kinds, pool.map(_twice, kinds.values())))  # noqa: B905

    def _page(self):
        said = health.answer(self.url, self.patience.usual)
        return None if said == 200 else f"{self.url} answers {said}."

    def _wordpress(self):
        layout = Layout(self.layout.id, self.release)
        argv = wordpress.command(layout, "core", "is-installed")
        try:
            pwd.getpwnam(layout.user)
        except KeyError:
            return f"The environment's user {layout.user} is gone."
        tool = wordpress.environment(layout)
        late = self.patience.usual
        command = sandbox.command(layout, argv, environment=tool, seconds=late, unit=secrets.token_hex(8))
        said = _run(command, late)
        return said and f"`wp core is-installed` {said}."

    def _database(self):
        password = wordpress.Configuration(self.layout, "").password
        name = self.layout.database
        query = f"SELECT LEFT(option_value, 100) FROM wp_options WHERE {wordpress.URLS} LIMIT 10"
        try:
            with sql.Session(name, password, name, answer_s=self.patience.usual) as session:
                session.rows(query)
        except driver.Missing:
            # A node whose baseline is older than this: that is no fault of the site's.
            argv = [*dump.CLIENT, f"--user={name}", name]
            said = _run(argv, self.patience.usual, text=query, environment={"MYSQL_PWD": password})
            return said and f"The database does not answer its user: the query {said}."
        except Failure as error:
            return f"The database does not answer its user: {error}"
        return None

    def _answers(self, release, beside=None):
        """Whether a release makes the home page by itself, as the environment's PHP is asked directly."""
        tree = f"{self.layout.releases}/{release}"
        served = beside and f"{self.layout.releases}/{beside}"
        longest = self.patience.usual
        try:
            health.private(
                Layout(self.layout.id, release), tree, self.url, patience=self.patience, served=served, longest=longest
            )
        except Failure:
            return False
        return True

    def _before(self):
        """The release that was applied before this one and is still here; None where there is none."""
        applied = [str(one) for one in self.manifest.get("releases", ())]
        before = applied[: applied.index(self.release)] if self.release in applied else []
        return next((one for one in reversed(before) if os.path.isdir(f"{self.layout.releases}/{one}")), None)

    @property
    def patience(self):
        return health.Patience.of(self.manifest["variables"])

    @property
    def url(self):
        return self.manifest.get("url") or self.manifest["variables"]["url"]


def _twice(check):
    """What is wrong, in words, both times; None where all is well."""
    if check() is None:
        return None
    time.sleep(RETRY_SECONDS)
    return check()


def _run(argv, seconds, text="", environment=None):
    """How a command failed, in words; None where it did not. What it says itself is nobody's business."""
    begun = time.monotonic()
    late = f"does not end within {seconds} s"
    try:
        done = subprocess.run(
            argv,
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds + SPARE_SECONDS,
            check=False,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        return late
    except OSError as error:
        return f"cannot be started ({error.strerror})"
    if done.returncode == 0:
        return None
    return late if time.monotonic() - begun >= seconds else f"fails with exit status {done.returncode}"


def _manifest(path):
    try:
        found = json.loads(read(path) or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) and "variables" in found else None


def _is_recent(path):
    try:
        return time.time() - os.stat(path).st_mtime < MAINTENANCE_SECONDS
    except OSError:
        return False
