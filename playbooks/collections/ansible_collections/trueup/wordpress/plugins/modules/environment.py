#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes one WordPress environment on this node what its variable says, in one execution."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: environment
short_description: Make one WordPress environment what its variable says
description:
  - User, directories, code, database, content, PHP, timer, server block and caches of one environment.
  - It can be killed anywhere and run again; a second run changes nothing.
  - Of two runs only one works, and of two jobs the one with the higher fence; see C(module_utils/fence.py).
options:
  variables:
    description: The role's variable, C(trueup_environment).
    type: dict
    required: true
  artifacts:
    description: For the action plugin. Archives on the controller.
    type: dict
  files:
    description: Set by the action plugin. Text of each managed file.
    type: dict
  role_digest:
    description: Set by the action plugin. sha256 over the role's own files.
    type: str
  archive:
    description: Set by the action plugin when the module wanted it. C(path) on the node and C(sha256).
    type: dict
  certify:
    description: The names for which a certificate may be asked now; left out, all that lack one.
    type: list
    elements: str
  held_options:
    description: Names of declared options that are left as they are, because somebody holds them.
    type: list
    elements: str
  staged:
    description: Under which id content was got ready that was here once, left, and comes back out of a backup.
    type: str
  looked_up:
    description:
      - Set by the action plugin when certificates are lacking. The names that DNS refuses, each with C(code) and
        C(message); no certificate is asked for them.
    type: dict
author: Trueup
"""

EXAMPLES = r"""
- name: Make the environment what its variable says
  trueup.wordpress.environment:
    variables: "{{ trueup_environment }}"
    artifacts: "{{ trueup_artifacts }}"
"""

RETURN = r"""
wanted: {description: The WordPress version whose archive has to be sent first., type: str, returned: when missing}
uncertified: {description: Names that have to be looked up in DNS first., type: list, returned: when there are any}
unit: {description: The systemd scope in which the run worked., type: str, returned: always}
busy: {description: Another run holds the environment., type: bool, returned: on failure}
stale: {description: A later job was here already., type: bool, returned: on failure}
held: {description: An operator holds the node., type: bool, returned: on failure}
replaced: {description: What a search-replace changed and what stays., type: dict, returned: when one was made}
rolled_back: {description: Code and content were put back as they were., type: bool, returned: on failure}
"""

import contextlib
import os
import signal

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils import nginx
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.certificates import Certificates
from ansible_collections.trueup.wordpress.plugins.module_utils.content import leftovers, replace
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import Swap
from ansible_collections.trueup.wordpress.plugins.module_utils.content.snapshot import Snapshot
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import (
    account,
    caches,
    core,
    egress,
    health,
    place,
    sandbox,
    spares,
    units,
    wordpress,
)
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import layout as names
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.address import Address
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.database import ROOM, Database
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.installation import Installation
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.ledger import Ledger, added
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.options import Options
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, Run, read
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.services import Services
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused
from ansible_collections.trueup.wordpress.plugins.module_utils.release import derived_tree as derived
from ansible_collections.trueup.wordpress.plugins.module_utils.release import drill, releases
from ansible_collections.trueup.wordpress.plugins.module_utils.release.rehearsal import leave_nothing

PLAYBOOKS = {
    "clone": "clone.yml",
    "import": "import.yml",
    "restore": "restore.yml",
    "promote": "promote.yml",
    "update": "updates.yml",
}
"""What brings a release or a content, by its origin."""
IN_PLACE = ("install", "search-replace")
"""Origins of content that nobody brings: it is made where it is."""


class Environment:
    """The steps, in the order in which they depend on each other; each changes only what differs."""

    def __init__(self, run, params):
        self.run = run
        self.variables = params["variables"]
        self.role_digest = params["role_digest"]
        self.layout = Layout(self.variables["id"], self.variables["release"]["id"])
        self.ledger = Ledger(self.layout.manifest)
        self.texts = {name: units.filled(text, units.php_binaries()) for name, text in params["files"].items()}
        self.address = Address(
            run,
            self.layout,
            self.variables,
            self.ledger,
            self.texts,
            certify=params["certify"],
            refused=params["looked_up"],
            forget_objects=self.forget_objects,
        )
        self.services = Services(run, self.layout, self.texts, keeps_objects=self.variables["redis_cache"])
        self.egress = egress.Egress(run, self.layout, self.variables, self.texts)
        self.options = Options(run, self.layout, self.variables, self.ledger, params["held_options"])
        self.staged = params["staged"] or self.variables["content"]["id"]
        self.patience = health.Patience.of(self.variables)
        self.visit = None
        self.user = None
        self.replaced = None

    def converge(self):
        """All the steps; what is served is put back when they don't end in a healthy site."""
        self.undo = []
        self.switched = False
        self.snapshot = None
        self.updating = False
        self.told = []
        self.draft = None
        try:
            self.steps()
        except (Failure, OSError, ValueError) as error:
            if not self.undo:
                raise
            facts = error.facts if isinstance(error, Failure) else {}
            # Another attempt would bring the same code: a release that was switched to and fails is at fault.
            code = {"trueup_code": health.UNHEALTHY} if self.switched else {}
            raise Failure(f"{error} {self.put_back()}", **{**code, **facts}, rolled_back=True) from error

    def put_back(self):
        """Undo what changed code and content, last first; what the site answers then."""
        noted = len(self.run.notes)
        while self.undo:
            self.undo.pop()()
        self.forget_objects()
        caches.empty(self.layout.cache)
        told = "".join(f" {one}" for one in [*self.told, *self.run.notes[noted:]])
        own = health.taken(self.layout, os.path.realpath(self.layout.current), self.address.url)
        try:
            health.page(self.address.url, self.patience, own)
        except Failure as error:
            return f"Code and content were put back as they were, but: {error}{told}"
        self.run.end()
        return f"Code and content were put back as they were, and the site is healthy.{told}"

    def steps(self):
        taken_out = self.begin()
        database, password, installation = self.bring_up()
        swap = self.content()
        self.replace()
        taken_out = self.keep_database() or taken_out
        is_new = not os.path.lexists(self.layout.current)
        switched = self.switch()
        if is_new and not self.visit and not self.run.check_mode:
            self.visit = health.Visit(self.layout, self.address.url)
        if (swap or switched) and not installation and not self.run.check_mode:
            self.upgrade(database, password)
        if switched and self.snapshot:
            # What WordPress kept of the former versions, and of which ones there are.
            self.forget_objects()
        place.hosts(self.run, self.layout.id, self.variables["hostnames"], self.address.own)
        self.egress.settle()
        self.address.settle(database, password, self.user, self.undo)
        set_anew = self.options.ensure(database, self.user, self.undo)
        if set_anew and not self.run.check_mode:
            self.forget_objects()
        self.pages(switched or swap or self.replaced or self.address.moved or taken_out or set_anew)
        if self.run.check_mode:
            return
        self.address.certificates.served()
        nginx.until_replaced(self.run.former_workers)
        self.egress.admit(self.user)
        if self.visit:
            self.visit.wait()
        self.look(database, password, is_new=installation is not None)
        self.undo = []
        leftovers.unserved(self.run, self.layout, self.ledger)
        self.address.keep()
        self.write_down(swap)
        if self.replaced is not None:
            replace.forget(self.layout.replaced)

    def begin(self):
        """User and directories; whether content was taken out that another run had left half-way."""
        if self.run.interrupted and not self.run.check_mode:
            sandbox.end_all(self.run, self.layout)
        self.user = account.ensure_user(self.run, self.layout)
        self.egress.ensure(self.user)
        self.address.own = self.egress.own_address(self.user)
        account.ensure_directories(self.run, self.layout, self.user)
        # wp-config.php loads it where the environment, or a rehearsal of it, is a copy.
        place.file(self.run, self.layout.copy_script, self.texts[names.COPY])
        leave_nothing(self.run, self.layout)
        drill.leave_nothing(self.run, self.layout)
        taken_out = leftovers.contents(self.run, self.layout, self.ledger, self.staged)
        taken_out = leftovers.replacement(self.run, self.layout, self.ledger) or taken_out
        if taken_out and not self.run.check_mode:
            self.forget_objects()
            caches.empty(self.layout.cache)
        self.refuse_spent()
        return taken_out

    def bring_up(self):
        """Code, database and PHP, of a new site side by side; the database, its password, and what was installed."""
        early = self.is_begun_early()
        if early:
            self.draft = core.begin_release(self.run, self.layout, self.variables["wordpress_version"])
        if early or os.path.isdir(self.layout.release):
            self.services.start_early()
        if not early:
            self.code()
        configuration = self.address.configuration()
        # A page of WordPress takes one connection, and some plugins one of their own.
        database = Database(self.run, self.layout, 2 * self.variables["php"]["max_children"] + ROOM)
        database.ensure(configuration.password)
        configuration.ensure(self.run, self.user)
        database.login(configuration.password)
        if early:
            self.code()
        installation = self.begin_content(database, configuration.password)
        if installation and installation.seeded:
            self.visit = health.Visit(self.layout, self.address.url, installation.filled)
        self.services.ensure()
        if installation and installation.finish():
            self.forget_objects()
        return database, configuration.password, installation

    def look(self, database, password, *, is_new):
        """Whether it is healthy. Of a new site whose code is all our own the page tells, which WordPress makes."""
        if is_new and not self.variables["release"]["source_type"]:
            health.page(self.address.url, self.patience)
            return
        url, thorough = self.address.url, self.run.changed
        health.check(self.run, self.layout, database, password, url, thorough=thorough, patience=self.patience)

    # Code

    def code(self):
        release = self.variables["release"]
        made = release.get("origin") or release["source_type"]
        if release.get("origin") in derived.ORIGINS and not self.run.check_mode:
            derived.bring(self.run, self.layout, self.variables, self.user)
        if made and not os.path.isdir(self.layout.release) and not self.run.check_mode:
            playbook = PLAYBOOKS.get(made, "deploy.yml")
            raise Failure(f"Release {self.layout.release_id} has to be brought first: playbooks/{playbook}.")
        core.ensure_release(self.run, self.layout, self.variables["wordpress_version"], self.user, self.draft)
        core.ensure_links(self.run, self.layout)
        core.ensure_ownership(self.run, self.layout, self.user, locked=self.variables["files"] == "locked")
        place.file(self.run, self.layout.mu_plugin, self.texts[names.MU_PLUGIN])
        place.file(self.run, self.layout.login, self.texts[names.LOGIN])
        place.file(self.run, self.layout.pages, self.texts[names.PAGES])
        self.drop_in()

    def is_begun_early(self):
        """Whether code, PHP and database of a new site are made side by side: nothing else has a part in its code."""
        release = self.variables["release"]
        is_plain = not release["source_type"] and not release.get("origin")
        return is_plain and not self.run.check_mode and not os.path.lexists(self.layout.current)

    def keep_database(self):
        """An update's code changes the tables in use: they are kept as they are until it is seen to be healthy.

        Whether what an earlier update had changed was taken out, because the store took that back.
        """
        release, snapshot = self.layout.release_id, Snapshot(self.run, self.layout)
        self.updating = self.variables["release"].get("origin") == "update" and release not in self.ledger.releases
        if self.updating:
            if self.run.change(f"database {snapshot.database}", "", f"as before release {release}"):
                snapshot.take(release)
                self.snapshot = snapshot
                self.undo.append(lambda: self.take_out(release))
            return False
        return not self.run.check_mode and snapshot.is_there() and self.end_update(snapshot)

    def end_update(self, snapshot):
        """What is left of an update that ended without this: it was killed, and the store took it back, or it is over.

        Whether there was anything to take out.
        """
        self.snapshot, release = snapshot, snapshot.taken_for()
        if release is None or release in self.ledger.releases:
            return False
        if self.run.change(f"database {self.layout.database}", f"of release {release}", "without its changes"):
            self.take_out(release)
            self.run.notes += self.told
            self.forget_objects()
        return True

    def take_out(self, release):
        """Take out of the tables what an update's code changed; visitors wait for it.

        The code that was served before is put back first, if that was not done: the other would change them again.
        """
        with self.services.at_rest():
            if self.ledger.releases and os.path.basename(os.path.realpath(self.layout.current)) == release:
                core.switch_to(self.run, self.layout, f"releases/{self.ledger.releases[-1]}")
            self.told = self.snapshot.take_out(release)

    def switch(self):
        """Make the release the current one, so that it can be taken back."""
        former = os.readlink(self.layout.current) if os.path.islink(self.layout.current) else None
        if former and former != f"releases/{self.layout.release_id}" and not self.run.check_mode:
            if self.layout.release_id not in self.ledger.releases:
                self.undo.append(lambda: releases.discard(self.layout))
            # An update's code would change the tables in use; what it makes of a copy was seen in its rehearsal.
            if not self.updating:
                served = os.path.realpath(self.layout.current)
                health.private(
                    self.layout, self.layout.release, self.address.url, self.ledger.url, self.patience, served=served
                )
        if not core.switch(self.run, self.layout):
            return False
        if former and not self.run.check_mode:
            self.undo.append(lambda: core.switch_to(self.run, self.layout, former))
            self.switched = True
        return True

    def upgrade(self, database, password):
        """The database follows the code's version, as WordPress itself would ask of the next administrator."""
        wanted = wordpress.database_version(self.layout.release)
        found = database.ask(password, "SELECT option_value FROM wp_options WHERE option_name = 'db_version';")
        found = found[0][0] if found else None
        if found != wanted and self.run.change(f"database version of {database.name}", found or "", wanted or ""):
            wordpress.upgrade(self.run, self.layout)

    def drop_in(self):
        """WordPress's way to Redis: what was kept before it came or went is not to be trusted."""
        path, text = self.layout.drop_in, self.texts[names.DROP_IN]
        if self.variables["redis_cache"]:
            toggled = not os.path.lexists(path)
            place.file(self.run, path, text)
        else:
            toggled = releases.OBJECT_CACHE in (read(path) or b"") and place.absent(self.run, path)
        if toggled and not self.run.check_mode:
            self.forget_objects()

    def forget_objects(self):
        try:
            caches.forget(self.layout)
        except (caches.RedisError, OSError) as error:
            self.run.notes.append(f"Objects kept in Redis were not removed: {error}")

    # Content

    def refuse_spent(self):
        """An id that was applied and left says nothing any more of how its content is made."""
        declared, applied = self.variables["content"]["id"], self.ledger.contents
        if declared in applied[:-1] and self.staged == declared:
            raise Failure(
                f"Content {declared} was here and was left for {applied[-1]}: what it was made of is not "
                "applied again. Bring it out of a backup: playbooks/restore.yml.",
                trueup_code="CONTENT_SPENT",
            )

    def content(self):
        """Swap staged content in, where another one is declared; the swap, or None."""
        declared, applied = self.variables["content"], self.ledger.contents
        spent = declared["id"] in applied[:-1]
        if declared["id"] in applied[-1:] or (declared["origin"] in IN_PLACE and not spent):
            return None
        swap = Swap(self.run, self.layout, self.staged)
        if self.run.check_mode:
            self.run.change(f"content {declared['id']}", "", declared["origin"])
            return swap
        if not swap.is_begun():
            playbook = PLAYBOOKS["restore" if spent else declared["origin"]]
            raise Failure(f"Content {declared['id']} has to be brought first: playbooks/{playbook}.")
        former = self.ledger.contents[-1] if self.ledger.contents else ""
        if self.run.change(f"content {declared['id']}", former, declared["origin"]):
            self.undo.append(swap.back)
            swap.forward()
            self.forget_objects()
        return swap

    def replace(self):
        """Replace a text where that is the declared content, in the tables in use."""
        declared, layout = self.variables["content"], self.layout
        if declared["origin"] != "search-replace" or declared["id"] in self.ledger.contents:
            return
        if not self.ledger.contents:
            raise Failure(
                f"Content {declared['id']} is a search-replace, and nothing is there to replace in. Restore a backup.",
                trueup_code="CONTENT_SPENT",
            )
        request = replace.Request.of(declared)
        if not self.run.change(f"content {declared['id']}", self.ledger.contents[-1], declared["origin"]):
            return
        self.undo.append(self.replace_back)
        self.replaced = replace.replace(layout.database, request, layout.replaced, declared["id"]).told()
        self.forget_objects()

    def replace_back(self):
        """Row by row: what visitors wrote meanwhile stays."""
        self.run.notes += replace.take_back(self.layout.database, self.layout.replaced)

    def begin_content(self, database, password):
        """Install what the ledger does not know, if nothing is there; None when there is nothing to do."""
        if database.found["draft"] and self.run.change(f"unfinished installation in {database.draft}", "present", ""):
            database.close_draft()
        if self.variables["content"]["origin"] != "install":
            return None
        if not database.empty:
            wordpress.refuse_foreign_tables(database, password)
            return None
        installation = Installation(self.run, self.layout, database, self.variables, self.texts[names.MU_PLUGIN])
        installation.begin(self.user)
        return installation

    def pages(self, switched):
        """Pages that nginx kept of another release, or from before it was told to keep none."""
        kept = caches.count(self.layout.cache)
        outdated = kept and (switched or not self.variables["fastcgi_cache"])
        if outdated and self.run.change(self.layout.cache, f"{kept} pages", "0 pages"):
            caches.empty(self.layout.cache)

    # The manifest

    def write_down(self, swap=None):
        layout = self.layout
        files = [layout.server_block, layout.wp_config, layout.mu_plugin, layout.login, layout.copy_script]
        files += [layout.pages, layout.hosts_section, *self.services.files, *self.egress.files]
        files += [layout.drop_in] if self.variables["redis_cache"] else []
        files += self.address.files
        files += [layout.releases, layout.shared, layout.uploads, layout.tmp, layout.logs]
        links = [layout.current, f"{layout.release}/wp-config.php", f"{layout.content}/uploads"]
        links += [f"{layout.release}/{core.LINKED}"]
        applied = added(self.ledger.releases, layout.release_id)
        self.ledger.write(
            self.run,
            self.variables,
            self.role_digest,
            self.address.url,
            files=sorted(files),
            links=links,
            services=self.services.names,
            options=self.options.stored,
            releases=core.forget_old_releases(self.run, layout, applied),
            unmanaged=releases.unmanaged(layout),
            contents=added(self.ledger.contents, self.variables["content"]["id"]),
            staged=self.staged if swap else self.ledger.staged,
        )
        if swap:
            swap.forget()
        if self.snapshot:
            self.snapshot.forget()
        self.run.end()


def apply(module, run):
    """Whether the archive has to be sent first is asked before anything is touched."""
    variables = module.params["variables"]
    version = variables["wordpress_version"]
    if not module.check_mode and not core.is_ready(run, version):
        if not module.params["archive"]:
            return {"wanted": version}
        core.unpack(run, version, module.params["archive"])
    uncertified = Certificates(run, Layout(variables["id"]), variables, module.params["certify"]).lacking()
    if uncertified and module.params["looked_up"] is None and not module.check_mode:
        return {"uncertified": uncertified}
    environment = Environment(run, module.params)
    environment.converge()
    if not module.check_mode:
        spares.fill(core.STORE)
    return {"replaced": environment.replaced} if environment.replaced is not None else {}


def main():
    options = {
        "variables": {"type": "dict", "required": True},
        "artifacts": {"type": "dict"},
        "files": {"type": "dict", "required": True},
        "role_digest": {"type": "str", "required": True},
        "archive": {"type": "dict"},
        "certify": {"type": "list", "elements": "str"},
        "held_options": {"type": "list", "elements": "str"},
        "staged": {"type": "str"},
        "looked_up": {"type": "dict"},
    }
    module = AnsibleModule(options, supports_check_mode=True)
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a lost connection is no reason to stop halfway
    variables = module.params["variables"]
    job = variables.get("job")
    fence = None
    try:
        layout = Layout(variables["id"])
        with contextlib.nullcontext() if module.check_mode else Fence(layout.id, job) as fence:
            run = Run(module.check_mode, layout.pending, job)
            run.inherited, run.scope = ((fence.handle,), fence.unit) if fence else ((), None)
            facts = apply(module, run)
    except (Failure, Refused) as error:
        module.fail_json(msg=str(error), **error.facts)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    notes = [*run.notes, *(fence.notes if fence else [])]
    module.exit_json(changed=run.changed, diff=run.diff, notes=notes, unit=fence.unit if fence else None, **facts)


if __name__ == "__main__":
    main()
