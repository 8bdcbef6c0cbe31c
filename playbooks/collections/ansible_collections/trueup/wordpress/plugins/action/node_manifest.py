# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of ``node_manifest``: only here are the role's own files, whose digest it adds."""

from __future__ import annotations

from ansible_collections.trueup.wordpress.plugins.module_utils.digest import role_digest, role_paths
from ansible_collections.trueup.wordpress.plugins.plugin_utils.kept_code import KeptCode


class ActionModule(KeptCode):
    """Adds ``role_digest`` and passes everything on."""

    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        arguments = {**self._task.args, "role_digest": role_digest(role_paths("node"))}
        return self._execute_module("trueup.wordpress.node_manifest", module_args=arguments, task_vars=task_vars)
