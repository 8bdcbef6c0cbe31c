# Copyright the Trueup contributors
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of ``environment``: renders the role's templates, so that the node is asked once.

The WordPress archive is sent only if the node answers that it lacks that version.
"""

from __future__ import annotations

import os
import re

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.text.converters import to_text
from ansible.template import trust_as_template
from ansible_collections.trueup.wordpress.plugins.module_utils import archive as archives
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates import resolution
from ansible_collections.trueup.wordpress.plugins.module_utils.digest import COLLECTION, role_digest, role_paths
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import egress, layout, sandbox
from ansible_collections.trueup.wordpress.plugins.plugin_utils.rounds import ModuleInRounds

RENDERING = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}

HOSTNAME = r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])"
SLUG = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
COOKIE = r"[A-Za-z0-9_]{1,64}"
PATTERNS = {
    "site": SLUG,
    "slug": SLUG,
    "type": r"production|staging|clone",
    "url": rf"https?://{HOSTNAME}",
    "wordpress_version": r"[0-9]+\.[0-9]+(?:\.[0-9]+)?",
    "files": r"writable|locked",
}
EGRESS = os.path.join(COLLECTION, "roles", "node", "templates", "system", "egress.nft.j2")
"""The node's rules for what goes out, of which nothing has to be filled in: a node may have been provisioned before."""
"""What a template writes into a file must look like this; the rest travels as data and may be anything."""


class ActionModule(ModuleInRounds):
    """Sends rendered files and parameters to one module, and the archive after them when it is asked for."""

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        variables = self._task.args["variables"]
        refuse_what_a_file_cannot_hold(variables)
        arguments = {
            "variables": variables,
            "certify": self._task.args.get("certify"),
            "held_options": self._task.args.get("held_options"),
            "staged": self._task.args.get("staged"),
            "files": self._files(variables),
            "role_digest": role_digest(role_paths("environment")),
        }
        return self._in_rounds(
            arguments,
            task_vars,
            wanted=lambda version: {"archive": self._send(version)},
            uncertified=lambda names: {"looked_up": self._look_up(names, variables, task_vars)},
        )

    def _files(self, variables):
        """Text of every managed file by its name in the layout."""
        try:
            paths = layout.Layout(variables["id"], variables["release"]["id"])
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        context = {
            "environment": dict(variables),
            "at": {**paths.names, "release": paths.release},
            "sandbox": [list(one) for one in sandbox.properties(paths, is_closed=egress.is_closed(variables))],
            "disabled_functions": sandbox.DISABLED_FUNCTIONS,
            "most": sandbox.resources(variables),
        }
        files = {name: self._render(template, context) for name, template in TEMPLATES.items()}
        files[layout.EGRESS] = to_text(self._loader.get_text_file_contents(EGRESS))
        return {**files, **{name: self._text(file) for name, file in PLAIN.items()}}

    def _render(self, name, context):
        path = self._find_needle("templates", name)
        data = trust_as_template(self._loader.get_text_file_contents(path))
        templar = self._templar.copy_with_new_env(searchpath=[os.path.dirname(path)], available_variables=context)
        return to_text(templar.template(data, escape_backslashes=False, overrides=RENDERING))

    def _text(self, name):
        return to_text(self._loader.get_text_file_contents(self._find_needle("files", name)))

    def _look_up(self, names, variables, task_vars):
        """Which of these names do not lead to the node, and why: for them no certificate is asked for."""
        address = task_vars.get("trueup_node", {}).get("address")
        if not address:
            raise AnsibleActionFail("trueup_node.address is needed to tell whether a domain leads to the node.")
        return resolution.refused(names, address, (variables.get("tls") or {}).get("resolvers") or ())

    def _send(self, version):
        """Where the node has the archive of ``version`` now, and what it must be."""
        try:
            archive = archives.checked(self._task.args["artifacts"], version)
        except (LookupError, ValueError) as error:
            raise AnsibleActionFail(str(error)) from error
        remote = self._remote_path("wordpress.tar.gz")
        self._transfer_file(archive["path"], remote)
        return {"path": remote, "sha256": archive["sha256"]}


TEMPLATES = {
    layout.NGINX: "nginx.conf.j2",
    layout.SERVER: "nginx-server.conf.j2",
    layout.POOL: "php-fpm.conf.j2",
    layout.PHP_UNIT: "php.service.j2",
    layout.CRON_UNIT: "cron.service.j2",
    layout.CRON_TIMER: "cron.timer.j2",
    layout.SLICE: "environment.slice.j2",
    layout.REDIS_UNIT: "redis.service.j2",
    layout.REDIS: "redis.conf.j2",
    layout.WP_CONFIG: "wp-config.php.j2",
}
PLAIN = {
    layout.MU_PLUGIN: "trueup.php",
    layout.DROP_IN: "object-cache.php",
    layout.LOGIN: "login.php",
    layout.COPY: "copy.php",
    layout.PAGES: "pages.php",
}


def refuse_what_a_file_cannot_hold(variables):
    for name, pattern in PATTERNS.items():
        if not re.fullmatch(pattern, variables[name]):
            raise AnsibleActionFail(
                f"trueup_environment.{name} is {variables[name]!r}, which is not of the form {pattern}."
            )
    for hostname in variables["hostnames"]:
        if not re.fullmatch(HOSTNAME, hostname):
            raise AnsibleActionFail(f"trueup_environment.hostnames has {hostname!r}, which is no host name.")
    if variables["url"].partition("://")[2] not in variables["hostnames"]:
        raise AnsibleActionFail(f"trueup_environment.hostnames lacks the host of the url {variables['url']}.")
    for name in variables.get("vary_cookies") or ():
        if not re.fullmatch(COOKIE, name):
            raise AnsibleActionFail(f"trueup_environment.vary_cookies has {name!r}, which is not of the form {COOKIE}.")
    said = variables.get("egress")
    for name in () if isinstance(said, str) else said or ():
        if not re.fullmatch(HOSTNAME, name):
            raise AnsibleActionFail(f"trueup_environment.egress has {name!r}, which is no host name.")
    for name in ("php", "resources", "health"):
        found = variables.get(name) or {}
        numbers = {key: value for key, value in found.items() if not isinstance(value, int) or isinstance(value, bool)}
        if numbers:
            raise AnsibleActionFail(f"trueup_environment.{name} must hold whole numbers, but has {numbers!r}.")
