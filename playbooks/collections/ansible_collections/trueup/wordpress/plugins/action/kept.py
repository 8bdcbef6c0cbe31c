# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of every module that needs none but this: ``meta/runtime.yml`` leads them here."""

from __future__ import annotations

from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible_collections.trueup.wordpress.plugins.plugin_utils.kept_code import KeptCode


class ActionModule(KeptCode, NormalAction):
    """As Ansible runs any module, out of code that is kept on the node."""
