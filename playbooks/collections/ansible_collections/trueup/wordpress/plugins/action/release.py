# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of ``release``: sends the archive when the node answers that it lacks the release."""

from __future__ import annotations

import hashlib
import os

from ansible.errors import AnsibleActionFail
from ansible_collections.trueup.wordpress.plugins.plugin_utils.rounds import ModuleInRounds


class ActionModule(ModuleInRounds):
    """One execution where the node has the release, two where its archive is sent."""

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        arguments = {"variables": self._task.args["variables"]}
        archive = self._task.args.get("archive")
        return self._in_rounds(arguments, task_vars, wanted=lambda _: {"archive": self._send(archive)})

    def _send(self, archive):
        if not archive or not os.path.isfile(archive["path"]):
            raise AnsibleActionFail(
                "The node lacks this release, and no archive of it was given. "
                'Give -e \'{"trueup_release_archive": {"path": "/path/to/site.tar.gz"}}\'.'
            )
        remote = self._remote_path("release")
        digest = _digest(archive["path"])
        if archive.get("sha256", digest) != digest:
            raise AnsibleActionFail(f"{archive['path']} has sha256 {digest} instead of {archive['sha256']}.")
        self._transfer_file(archive["path"], remote)
        return {"path": remote, "sha256": digest}


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
