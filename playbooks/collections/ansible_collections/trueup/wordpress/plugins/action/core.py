# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of ``core``: sends the archive when the node answers that it lacks the version."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible_collections.trueup.wordpress.plugins.module_utils.archive import checked
from ansible_collections.trueup.wordpress.plugins.plugin_utils.kept_code import KeptCode


class ActionModule(KeptCode):
    """One execution where the node has the version, two where it is sent."""

    _supports_check_mode = True
    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        arguments = {key: value for key, value in self._task.args.items() if key != "artifacts"}
        result = self._execute_module("trueup.wordpress.core", module_args=arguments, task_vars=task_vars)
        if result.get("failed") or not result.get("wanted"):
            return result
        try:
            archive = checked(self._task.args["artifacts"], arguments["version"])
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
        return self._execute_module("trueup.wordpress.core", module_args=arguments, task_vars=task_vars)
