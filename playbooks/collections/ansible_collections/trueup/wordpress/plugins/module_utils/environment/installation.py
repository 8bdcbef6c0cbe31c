# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The content of a new site: the rows of a seed, or what WordPress makes itself where there can be no seed.

Either is made in the draft database and moved over in one step, so that nobody reaches a half-installed site, which
anybody could finish for himself.
"""

from __future__ import annotations

import threading
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import (
    place,
    sandbox,
    seed,
    seed_install,
    wordpress,
)
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure


class Installation:
    """``plugin``: text of our must-use plugin, which WordPress loads when it installs itself."""

    def __init__(self, run, layout, database, variables, plugin):
        self.run = run
        self.layout = layout
        self.database = database
        self.variables = variables
        self.plugin = plugin
        self.user = None
        self.process = None
        self.seeded = False

    def begin(self, user):
        """Start it; ``finish`` waits."""
        if not self.run.change(f"content {self.variables['content']['id']}", "", "install WordPress"):
            return
        self.user = user
        self.process = self.start_seed() or self.start_tool()

    def filled(self):
        """Wait for the rows of the seed, while ``finish`` may be waiting too."""
        self.process.thread.join()

    def finish(self):
        """Whether there is a new site now; in check mode there is none."""
        if self.process is None:
            return False
        try:
            self._wait()
        except Failure as error:
            if not self.seeded:
                raise
            self.run.notes.append(f"The seed did not become a site, so WordPress installs itself: {error}")
            self.seeded = False
            self.run.wait(self.start_tool(), hint="WordPress was not installed")
        if not self.seeded:
            self.database.adopt_draft()
        return True

    def _wait(self):
        if self.seeded:
            self.process.wait()
        else:
            self.run.wait(self.process, hint="WordPress was not installed")

    def start_seed(self):
        """What makes the rows and moves them over; None where WordPress has to install itself."""
        values = seed.values_of(self.variables)
        of = seed_install.facts_of(self.variables, place.sha256(self.plugin.encode("utf-8")))
        found = seed_install.ready(self.run, of, self.plugin) if values else None
        if found is None:
            return None
        self.seeded = True
        statements = self.database.through_draft(
            found.statements(values, time.time()), [table["name"] for table in found.tables]
        )
        return SeedLoad(self.database.name, statements)

    def start_tool(self):
        """WordPress's own installer. The password that it makes up nobody reads: people come in by magic login."""
        self.database.open_draft()
        argv = wordpress.install_tool(
            self.layout.release,
            self.variables["url"],
            self.variables["content"],
            f'define("DB_NAME", "{self.database.draft}");',
        )
        return sandbox.start(self.run, self.layout, argv, environment=wordpress.environment(self.layout))


class SeedLoad:
    """Statements that run meanwhile, as this run's own user of the environment's databases."""

    def __init__(self, database, statements):
        self.statements = statements
        self.session = sql.opened(database)
        self.error = None
        self.thread = threading.Thread(target=self._fill, daemon=True)
        self.thread.start()

    def _fill(self):
        try:
            with self.session:
                self.session.say(*self.statements)
        except Failure as error:
            self.error = error

    def wait(self):
        """Until all of them were run; a Failure when one was refused."""
        self.thread.join()
        if self.error:
            raise self.error
