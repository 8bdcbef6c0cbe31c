# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of ``search_replace``: it runs out of code that is kept on the node."""

from ansible_collections.trueup.wordpress.plugins.plugin_utils.kept_code import KeptModule as ActionModule

__all__ = ["ActionModule"]
