# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of ``trueup_core``: sends the archive when the node answers that it lacks the version."""

from __future__ import annotations

import importlib.util
import os

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

PLAYBOOKS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _archives():
    """Ansible puts ``module_utils`` on the node's path, not on the controller's."""
    path = os.path.join(PLAYBOOKS, "module_utils", "trueup_archive.py")
    specification = importlib.util.spec_from_file_location("trueup_archive", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class ActionModule(ActionBase):
    """One execution where the node has the version, two where it is sent."""

    _supports_check_mode = True
    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        arguments = {key: value for key, value in self._task.args.items() if key != "artifacts"}
        result = self._execute_module("trueup_core", module_args=arguments, task_vars=task_vars)
        if result.get("failed") or not result.get("wanted"):
            return result
        try:
            archive = _archives().checked(self._task.args["artifacts"], arguments["version"])
        except LookupError:
            # Not needed before somebody makes a site of that version; then it is an error.
            return {
                **result,
                "msg": f"WordPress {arguments['version']} is not on the controller yet; nothing was sent.",
            }
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        if self._task.check_mode:
            return {**result, "changed": True}
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "wordpress.tar.gz")
        self._transfer_file(archive["path"], remote)
        arguments["archive"] = {"path": remote, "sha256": archive["sha256"]}
        return self._execute_module("trueup_core", module_args=arguments, task_vars=task_vars)
