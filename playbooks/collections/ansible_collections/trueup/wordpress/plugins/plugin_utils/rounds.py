# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions whose module may answer that it wants something of the controller before it goes on."""

from __future__ import annotations

from ansible_collections.trueup.wordpress.plugins.plugin_utils.kept_code import KeptCode


class ModuleInRounds(KeptCode):
    """The module runs once, and once more for each thing that it asks for."""

    _supports_check_mode = True
    _supports_diff = True
    TRANSFERS_FILES = True

    def _in_rounds(self, arguments, task_vars, **answers):
        """The last result. ``answers``: key of a result → what turns its value into further arguments."""
        result = self._round(arguments, task_vars)
        for question, answer in answers.items():
            if not result.get("failed") and result.get(question):
                arguments.update(answer(result[question]))
                result = self._round(arguments, task_vars)
        if not self._task.diff:
            result.pop("diff", None)
        return result

    def _round(self, arguments, task_vars):
        return self._execute_module(self._task.resolved_action, module_args=arguments, task_vars=task_vars)

    def _remote_path(self, name):
        """Where a file of this run is put on the node."""
        return self._connection._shell.join_path(self._connection._shell.tmpdir, name)
