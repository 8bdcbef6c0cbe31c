# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of ``trueup_node_manifest``: only here are the role's own files, whose digest it adds."""

from __future__ import annotations

import importlib.util
import os

from ansible.plugins.action import ActionBase

PLAYBOOKS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _digest_module():
    """Ansible puts ``module_utils`` on the node's path, not on the controller's."""
    path = os.path.join(PLAYBOOKS, "module_utils", "trueup_digest.py")
    specification = importlib.util.spec_from_file_location("trueup_digest", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class ActionModule(ActionBase):
    """Adds ``role_digest`` and passes everything on."""

    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        digests = _digest_module()
        arguments = {**self._task.args, "role_digest": digests.role_digest(digests.role_paths("node"))}
        return self._execute_module("trueup_node_manifest", module_args=arguments, task_vars=task_vars)
