# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions whose modules run on the node out of code that is kept there, compiled.

Ansible sends a module with all that it imports as one zip, which Python reads and compiles in every run: half of what a
short run takes. Here a few lines are sent that look for the copy of exactly this code; where there is none, the zip
follows and stays. What cannot be done so (files that are to be kept, another ansible-core) goes Ansible's own way.
"""

from __future__ import annotations

import ast
import base64
import dataclasses
import io
import os
import zipfile

from ansible import constants as C
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.action import ActionBase
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible_collections.trueup.wordpress.plugins.plugin_utils import kept_code_node as node

CALL = b'\n\nif __name__ == "__main__":\n    _ansiballz_main(\n'
KNOWN = frozenset(
    (
        "ansible_module",
        "module_fqn",
        "profile",
        "date_time",
        "rlimit_nofile",
        "params",
        "extensions",
        "zip_data",
    )
)


class KeptCode(ActionBase):
    """In front of ``ActionBase``; ``_execute_module`` does the rest."""

    _whole = False

    def _update_module_args(self, module_name, module_args, *args, **kwargs):
        """A module writes what it was given into the node's journal. Ours are given secrets: theirs do not."""
        super()._update_module_args(module_name, module_args, *args, **kwargs)
        module_args["_ansible_no_log"] = True

    def _execute_module(self, *args, wrap_async=False, **kwargs):
        self._kept = not (wrap_async or self._task.async_val or C.DEFAULT_KEEP_REMOTE_FILES)
        self._kept = self._kept and self._is_pipelining_enabled("new")
        result = super()._execute_module(*args, wrap_async=wrap_async, **kwargs)
        if result.get("trueup_code") == "missing":
            self._whole = True
            result = super()._execute_module(*args, wrap_async=wrap_async, **kwargs)
        return result

    def _configure_module(self, module_name, module_args, task_vars):
        built, path = super()._configure_module(module_name, module_args, task_vars)
        keep = not self._task.check_mode  # which changes nothing, not even this
        data = rewritten(built.b_module_data, whole=self._whole, keep=keep) if self._kept else None
        return (built if data is None else dataclasses.replace(built, b_module_data=data)), path


class KeptModule(KeptCode, NormalAction):
    """For a module that needs nothing else of the controller."""


def rewritten(data, *, whole, keep):
    """What is sent in place of Ansible's own text; None where that is not of the form that is known here."""
    head, found, call = data.partition(CALL)
    if not found:
        return None
    values = dict(line.split("=", 1) for line in to_text(call).splitlines() if "=" in line)
    if set(values) != KNOWN or ast.literal_eval(values["rlimit_nofile"].rstrip(",")):
        return None
    packed = ast.literal_eval(values["zip_data"].rstrip(","))
    with open(os.path.splitext(node.__file__)[0] + ".py", "rb") as file:
        text = file.read()
    shebang = head.partition(b"\n")[0]
    call = (
        f"run({_digest_of(packed)!r}, {packed if whole else None!r}, {{"
        f"'json_params': {values['params'].rstrip(',')}.encode(), 'profile': {values['profile'].rstrip(',')}, "
        f"'module_fqn': {values['module_fqn'].rstrip(',')}, 'extensions': {values['extensions'].rstrip(',')}}}, "
        f"keeps={keep})\n"
    )
    return shebang + b"\n" + text + b"\n\n" + to_bytes(call)


def _digest_of(packed):
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(packed))) as archive:
        names = [name for name in archive.namelist() if name.endswith(".py")]
        return node.content_digest({name: archive.read(name) for name in names})
