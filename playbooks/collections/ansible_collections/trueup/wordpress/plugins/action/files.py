# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of ``files``: renders every template here, so that the node is asked once for all of them.

A binary (``local``) is sent only when the node's answer says that it wants it.
"""

from __future__ import annotations

import hashlib
import os

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.text.converters import to_text
from ansible.template import trust_as_template
from ansible_collections.trueup.wordpress.plugins.plugin_utils.rounds import ModuleInRounds

RENDERING = {"trim_blocks": True, "lstrip_blocks": False}


class ActionModule(ModuleInRounds):
    """Turns ``template`` into ``content`` and ``local`` into an upload; all else goes to the module as it is."""

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        binaries = {}
        entries = []
        for entry in self._task.args.get("entries", []):
            rendered = dict(entry)
            if "template" in rendered:
                rendered["content"] = self._render(rendered.pop("template"), task_vars)
            if "local" in rendered:
                binaries[rendered["path"]] = self._verified(rendered.pop("local"), rendered.get("sha256"))
            entries.append(rendered)
        arguments = {**self._task.args, "entries": entries}
        return self._in_rounds(
            arguments,
            task_vars,
            wanted=lambda paths: {"uploads": {path: self._upload(binaries[path]) for path in paths}},
        )

    def _render(self, name, task_vars):
        path = self._find_needle("templates", name)
        data = trust_as_template(self._loader.get_text_file_contents(path))
        templar = self._templar.copy_with_new_env(searchpath=[os.path.dirname(path)], available_variables=task_vars)
        return to_text(templar.template(data, escape_backslashes=False, overrides=RENDERING))

    def _verified(self, path, sha256):
        """The path, once its content is what the pin says."""
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise AnsibleActionFail(
                f"{path} has sha256 {found}, but its pin says {sha256}. Delete it and let it be fetched again."
            )
        return path

    def _upload(self, path):
        remote = self._remote_path(os.path.basename(path))
        self._transfer_file(path, remote)
        return remote
