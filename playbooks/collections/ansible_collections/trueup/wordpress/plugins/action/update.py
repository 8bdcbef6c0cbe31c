# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of ``update``: sends the packages when the node answers that it lacks the release."""

from __future__ import annotations

import hashlib

from ansible.errors import AnsibleActionFail
from ansible_collections.trueup.wordpress.plugins.plugin_utils.rounds import ModuleInRounds


class ActionModule(ModuleInRounds):
    """One execution where the release is there and was rehearsed, two where it is made."""

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        given = list(self._task.args["packages"] or ())
        arguments = {"variables": self._task.args["variables"], "packages": [_described(one) for one in given]}
        return self._in_rounds(
            arguments,
            task_vars,
            wanted=lambda _: {"packages": [self._send(number, one) for number, one in enumerate(given)]},
        )

    def _send(self, number, package):
        try:
            with open(package["path"], "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise AnsibleActionFail(f"The package of {package['key']} cannot be read: {error}.") from error
        if package.get("sha256", digest) != digest:
            raise AnsibleActionFail(f"{package['path']} has sha256 {digest} instead of {package['sha256']}.")
        remote = self._remote_path(f"package-{number}")
        self._transfer_file(package["path"], remote)
        return {**_described(package), "path": remote, "sha256": digest}


def _described(package):
    return {name: package[name] for name in ("kind", "key", "directory", "version")}
