# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the environment is found: certificates first, then WordPress's address, and nginx sends people there last."""

from __future__ import annotations

import contextlib
import os

from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.certificates import Certificates
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.domains import Names
from ansible_collections.trueup.wordpress.plugins.module_utils.content.rewrite_tables import take_back
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import layout as names
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import units, wordpress


class Address:
    """``former``: WordPress's address when the run began, and ``url`` the one that it has come to.

    ``certify``: see ``Certificates``. ``refused``: names that DNS refuses. ``forget_objects``: after content has moved.
    """

    def __init__(self, run, layout, variables, ledger, texts, *, certify, refused, forget_objects):
        self.run = run
        self.layout = layout
        self.ledger = ledger
        self.texts = texts
        self.names = Names(variables)
        self.certificates = Certificates(run, layout, variables, certify)
        self.refused = refused or {}
        self.forget_objects = forget_objects
        self.former = self.url = ledger.url or variables["url"]
        self.own = None
        """An address of the loopback that is this environment's alone."""
        self.files = []

    @property
    def moved(self):
        return self.ledger.url is not None and self.url != self.former

    def configuration(self):
        """wp-config.php for the address."""
        secure = "true" if self.url.startswith("https:") else "false"
        return wordpress.Configuration(self.layout, units.filled(self.texts[names.WP_CONFIG], {"@SECURE@": secure}))

    def settle(self, database, password, user, undo):
        """Get the certificates that are lacking and move to the address that is declared, as far as it is ready.

        The way back is put into ``undo``.
        """
        self._content_back()
        self.files = self.certificates.trust()
        if self.certificates.lacking():
            self._serve()
            self.certificates.ask(self.refused)
        wanted = self.names.address
        if wanted != self.former:
            self._serve()
            if not self.run.check_mode:
                undo.append(lambda: self._back(user))
            if wordpress.move_address(self.run, database, password, self.former, wanted, self.layout.undo):
                self.forget_objects()
            self.url = wanted
            self.configuration().ensure(self.run, user)
        self._serve()

    def keep(self):
        """All is well: there is no way back, and what belonged to names that are gone goes."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.layout.undo)
        self.certificates.forget(self.ledger.certified)

    def _back(self, user):
        self._content_back()
        self.url = self.former
        self.configuration().ensure(self.run, user)
        self._serve()

    def _content_back(self):
        """Content is again what it was before an address was moved, by this run or by one that did not end."""
        if os.path.exists(self.layout.undo) and not self.run.check_mode:
            self.run.notes += take_back(self.layout.database, self.layout.undo)
            self.forget_objects()

    def _serve(self):
        servers = self.names.servers(self.texts[names.SERVER], self.url, self.own).rstrip("\n")
        text = units.filled(self.texts[names.NGINX], {"@SERVERS@": servers})
        units.ensure_server_block(self.run, self.layout, text)
