#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Removes all of one environment from this node, and nothing of any other."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: remove
short_description: Remove one environment from this node
description:
  - Server block, units, databases with their user, caches, files, Linux user, certificates, section of C(/etc/hosts)
    and manifest.
  - What serves it goes first and its manifest last, so that it can be killed anywhere and run again.
  - Its fence stays, so that a job that is late cannot bring it back.
  - It takes no backup. Take one first; playbook C(backup.yml).
options:
  variables:
    description: The environment's variable, C(trueup_environment).
    type: dict
    required: true
  confirm:
    description: The environment's id, again. Anything else is refused.
    type: str
    required: true
author: Trueup
"""

EXAMPLES = r"""
- name: Remove the environment
  trueup.wordpress.remove:
    variables: "{{ trueup_environment }}"
    confirm: 5b0f6a3e-8f6e-4d0b-9d53-0a6f0c1d2e3f
"""

RETURN = r"""
busy: {description: Another run holds the environment., type: bool, returned: on failure}
stale: {description: A later job was here already., type: bool, returned: on failure}
held: {description: An operator holds the node., type: bool, returned: on failure}
"""

import contextlib
import os
import pwd
import signal
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils import sql
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.certificates import Certificates
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.domains import Names
from ansible_collections.trueup.wordpress.plugins.module_utils.content import leftovers
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import caches, egress, place, units
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.ledger import Ledger
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, Run
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused
from ansible_collections.trueup.wordpress.plugins.module_utils.listed_hosts import Listed
from ansible_collections.trueup.wordpress.plugins.module_utils.release.drill import Drill
from ansible_collections.trueup.wordpress.plugins.module_utils.release.rehearsal import UNITS, Rehearsal
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

END_S = 10.0
"""How long killed processes may take to be gone; after that it is told that the user was not removed."""


class Removal:
    """The steps, what is seen from outside first; each takes only what is still there."""

    def __init__(self, run, variables):
        self.run = run
        self.layout = Layout(variables["id"])
        self.certified = Names(variables).certified
        self.certificates = Certificates(run, self.layout, {**variables, "domains": []}, ())

    def carry_out(self):
        units.remove_server_block(self.run, self.layout)
        self.services()
        self.databases()
        self.objects()
        sockets = os.path.dirname(self.layout.socket)
        ours = (self.layout.cache, os.path.dirname(self.layout.pool), sockets, self.layout.site)
        for path in (*leftovers.workplaces(self.layout), *ours):
            self.tree(path)
        self.user()
        place.hosts(self.run, self.layout.id, ())
        self.certificates.forget([*Ledger(self.layout.manifest).certified, *self.certified])
        place.absent(self.run, f"/var/spool/cron/crontabs/{self.layout.user}")
        place.absent(self.run, self.layout.undo)
        for path in (self.layout.egress, self.layout.listed, *Listed(self.layout.id).files):
            place.absent(self.run, path)
        place.absent(self.run, self.layout.replaced)
        place.absent(self.run, self.layout.manifest)
        if not self.run.check_mode:
            self.run.end()

    def services(self):
        layout = self.layout
        wishes = dict.fromkeys((layout.php_service, layout.redis_service), "multi-user.target")
        wishes[layout.cron_timer] = "timers.target"
        # Those that a run which was killed may have left: they are nowhere else, and gone after a restart.
        beside = [f"trueup-{kind}-{layout.short}.service" for kind in ("bridge", Rehearsal.kind, Drill.kind)]
        own = [layout.cron_timer, layout.cron_service, layout.php_service, layout.redis_service, layout.slice]
        names = [*beside, *own]
        states = units.states(self.run, names)
        running = [name for name in names if states[name].get("ActiveState") not in ("inactive", "failed")]
        if running and self.run.change(f"stop {' '.join(running)}", "active", "inactive"):
            self.run.command(["systemctl", "stop", *running], hint=f"systemd did not stop {' '.join(running)}")
        gone = [place.absent(self.run, units.Unit(name, target).wish) for name, target in wishes.items()]
        gone += [place.absent(self.run, layout.unit_file(name)) for name in names]
        gone += [place.absent(self.run, f"{UNITS}/{name}") for name in beside]
        if not self.run.check_mode and (any(gone) or self.run.interrupted):
            self.run.command(["systemctl", "daemon-reload"])

    def databases(self):
        """The database, those that a run may have left beside it, and the user."""
        name = self.layout.database
        beside = sql.literal(sql.pattern(f"{name}_") + "%")
        found = sql.root().rows(
            "SELECT schema_name FROM information_schema.schemata "
            f"WHERE schema_name = {sql.literal(name)} OR schema_name LIKE {beside}"
        )
        users = sql.root().rows(
            "SELECT User FROM mysql.global_priv WHERE Host = 'localhost' "
            f"AND (User = {sql.literal(name)} OR User LIKE {beside})"
        )
        found, users = [one for (one,) in found], [one for (one,) in users]
        if (found or users) and self.run.change(f"database {name}", "\n".join([*found, *users]), ""):
            sql.drop(*found)
            sql.root().say(*(f"DROP USER IF EXISTS {sql.identifier(user)}@localhost" for user in users))
            sql.forget_accounts(self.layout.short)

    def objects(self):
        """Those in the node's Redis, of an environment that an earlier version made: its own went with its units."""
        try:
            count = caches.count_shared(self.layout)
            if count and self.run.change(f"Redis {self.layout.redis_prefix}*", f"{count} objects", ""):
                caches.forget_shared(self.layout)
        except (caches.RedisError, OSError) as error:
            self.run.notes.append(f"Objects kept in Redis were not removed: {error}")

    def tree(self, path):
        if paths.target(path) is not None:
            raise Failure(f"{path} is a link, which Trueup did not make. Look where it leads, and remove it by hand.")
        if paths.is_directory(path) and self.run.change(path, "present", ""):
            paths.remove(path)

    def user(self):
        try:
            user = pwd.getpwnam(self.layout.user)
        except KeyError:
            return
        if self.run.change(f"user {self.layout.user}", self.layout.user, ""):
            end_processes(user.pw_uid)
            egress.forget(self.run, self.layout, user)
            self.run.command(["userdel", self.layout.user], hint=f"User {self.layout.user} was not removed")


def end_processes(uid):
    """Kill what runs as a user: what a killed run left, or a site started for itself, would keep the user here."""
    deadline = time.monotonic() + END_S
    while (pids := processes_of(uid)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def processes_of(uid):
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == uid:
                found.append(int(name))
    return found


def main():
    options = {"variables": {"type": "dict", "required": True}, "confirm": {"type": "str", "required": True}}
    module = AnsibleModule(options, supports_check_mode=True)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a lost connection is no reason to stop halfway
    variables = module.params["variables"]
    job = variables.get("job")
    try:
        layout = Layout(variables["id"])
        if module.params["confirm"] != layout.id:
            raise Failure(f"Removing is final. Confirm it with the environment's id, {layout.id}.")
        with contextlib.nullcontext() if module.check_mode else Fence(layout.id, job) as fence:
            run = Run(module.check_mode, layout.pending, job)
            run.inherited = (fence.handle,) if fence else ()
            Removal(run, variables).carry_out()
    except (Failure, Refused) as error:
        module.fail_json(msg=str(error), **error.facts)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    module.exit_json(changed=run.changed, diff=run.diff, notes=run.notes)


if __name__ == "__main__":
    main()
