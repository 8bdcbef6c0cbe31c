#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Puts a set of files, directories and links in place in one execution: all of them valid, or none."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils import pending
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused

DOCUMENTATION = r"""
module: files
short_description: Put a set of files in place in one execution
description:
  - Each file is written beside its place and renamed over it, so a reader sees the old one or the new one.
  - Files with C(validate) are checked before anything is changed. C(check) runs after the whole set is in place;
    when it fails, every file of the set gets its former content back and the task fails.
  - Before the first change it writes C(/etc/trueup/node.pending), which is there until the node's manifest is written.
options:
  entries:
    description: What to put in place, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path on the node.
        type: path
        required: true
      state:
        description: What shall be there. C(once) writes the file only if nothing is there, and never looks again.
        type: str
        choices: [file, once, directory, link, absent]
        default: file
      template:
        description: Name of a template of the role; rendered on the controller.
        type: str
      content:
        description: The file's text.
        type: str
      local:
        description: A file on the controller, sent only if the node's has another O(entries[].sha256).
        type: path
      sha256:
        description: What O(entries[].local) must be.
        type: str
      target:
        description: Where a link points.
        type: str
      owner:
        type: str
        default: root
        description: Owning user.
      group:
        type: str
        default: root
        description: Owning group.
      mode:
        type: str
        description: Permissions; 0644 for files and 0755 for directories if left out.
      validate:
        description: Command (no shell); C(%s) stands for the new file.
        type: list
        elements: str
  check:
    description: Command (no shell) that must succeed with the whole set in place.
    type: list
    elements: str
  target:
    description: What the files belong to; one run at a time changes it.
    type: str
    required: true
  job:
    description: Who runs this, C(id) and C(fence); left out by hand.
    type: dict
  uploads:
    description: Set by the action plugin. Where binaries were put, by path.
    type: dict
    default: {}
author: Trueup
"""

EXAMPLES = r"""
- name: Put nginx's files in place
  trueup.wordpress.files:
    target: node
    entries:
      - {path: /etc/nginx/nginx.conf, template: nginx/nginx.conf.j2}
      - {path: /etc/nginx/sites-enabled/default, state: absent}
    check: [nginx, -t]
"""

RETURN = r"""
files:
  description: sha256 of each managed file, as it is meant to be.
  type: dict
  returned: always
links:
  description: Target of each managed link.
  type: dict
  returned: always
paths:
  description: What was changed.
  type: list
  returned: always
"""

DEFAULT_MODES = {"file": "0644", "once": "0644", "directory": "0755"}


class Invalid(Exception):
    """A file cannot be put in place; nothing was changed, or everything was put back."""


def read(path):
    """The file's bytes; None where there is no regular file."""
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def sha256_of(path):
    data = read(path)
    return None if data is None else hashlib.sha256(data).hexdigest()


def run(argv):
    """Error text of a command, or None when it succeeded."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return None if done.returncode == 0 else done.stdout.decode("utf-8", "replace").strip()[-4000:]


def write(path, data, attributes=None):
    """Replace a file by a rename; ``attributes`` are (mode, uid, gid)."""
    handle, draft = tempfile.mkstemp(prefix=".trueup-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if attributes:
            mode, uid, gid = attributes
            os.chown(draft, uid, gid)
            os.chmod(draft, mode)
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


class Former:
    """What was at a path before, well enough to put it back."""

    def __init__(self, path):
        self.path = path
        self.link = os.readlink(path) if os.path.islink(path) else None
        self.data = read(path)
        self.stat = os.lstat(path) if self.data is not None else None

    def restore(self):
        if self.data is not None:
            write(self.path, self.data, (stat.S_IMODE(self.stat.st_mode), self.stat.st_uid, self.stat.st_gid))
            return
        if os.path.lexists(self.path):
            os.unlink(self.path)
        if self.link is not None:
            os.symlink(self.link, self.path)

    @property
    def text(self):
        if self.data is None:
            return "" if self.link is None else f"link {self.link}\n"
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError:
            return f"binary, sha256 {hashlib.sha256(self.data).hexdigest()}\n"


class Entry:
    """One thing that shall be there (or not), compared with what is there."""

    def __init__(self, options, uploads, check_mode):
        self.path = options["path"]
        self.state = options["state"]
        self.target = options["target"]
        self.validate_argv = options["validate"]
        self.sha256 = options["sha256"]
        self.text = options["content"]
        self.upload = uploads.get(self.path)
        self.mode = int(options["mode"] or DEFAULT_MODES.get(self.state, "0644"), 8)
        self.uid = self._identify(lambda: pwd.getpwnam(options["owner"]).pw_uid, options["owner"], check_mode)
        self.gid = self._identify(lambda: grp.getgrnam(options["group"]).gr_gid, options["group"], check_mode)
        self.former = Former(self.path)
        self.changed = False

    def _identify(self, lookup, name, check_mode):
        """A user or group that an earlier step would only make for real is no error in check mode."""
        try:
            return lookup()
        except KeyError:
            if check_mode:
                return -1
            raise Invalid(f"{self.path} shall belong to {name}, which does not exist on this node.") from None

    @property
    def data(self):
        if self.text is not None:
            return self.text.encode("utf-8")
        return read(self.upload) if self.upload else None

    @property
    def managed(self):
        """Whether the content is ours to keep."""
        return self.state == "file"

    @property
    def intended(self):
        return self.sha256 or hashlib.sha256(self.data).hexdigest()

    @property
    def wanted(self):
        """Whether a binary has to be sent first."""
        return bool(self.managed and self.sha256 and not self.upload and sha256_of(self.path) != self.sha256)

    def stale(self):
        if self.state == "once":
            return not os.path.lexists(self.path)
        return self.managed and sha256_of(self.path) != self.intended

    def validate(self):
        if not self.validate_argv or not self.stale() or shutil.which(self.validate_argv[0]) is None:
            return
        with tempfile.NamedTemporaryFile(prefix="trueup-") as draft:
            draft.write(self.data)
            draft.flush()
            error = run([part.replace("%s", draft.name) for part in self.validate_argv])
        if error:
            raise Invalid(f"{self.path} was not replaced, because the new one is not valid: {error}")

    def apply(self, check_mode):
        """Make it so (or only say so); whether anything changes."""
        step = {"directory": self._directory, "link": self._link, "absent": self._absent}.get(self.state, self._file)
        self.changed = step(check_mode)
        return self.changed

    def _file(self, check_mode):
        stale = self.stale()
        if stale and not check_mode:
            if self.state == "file" and (os.path.isdir(self.path) and not os.path.islink(self.path)):
                raise Invalid(f"{self.path} is a directory, but a file belongs there. Move it away and run again.")
            write(self.path, self.data, (self.mode, self.uid, self.gid))
        if stale or self.state == "once":
            return stale
        return self._attributes(check_mode)

    def _directory(self, check_mode):
        missing = not os.path.isdir(self.path)
        if missing and not check_mode:
            os.makedirs(self.path)
        if missing and check_mode:
            return True
        return self._attributes(check_mode) or missing

    def _link(self, check_mode):
        if os.path.islink(self.path) and os.readlink(self.path) == self.target:
            return False
        if not check_mode:
            draft = f"{self.path}.trueup-new"
            if os.path.lexists(draft):
                os.unlink(draft)
            os.symlink(self.target, draft)
            os.rename(draft, self.path)
        return True

    def _absent(self, check_mode):
        if not os.path.lexists(self.path):
            return False
        if not check_mode:
            os.unlink(self.path)
        return True

    def _attributes(self, check_mode):
        found = os.lstat(self.path)
        wrong_mode = stat.S_IMODE(found.st_mode) != self.mode
        wrong_owner = (found.st_uid, found.st_gid) != (self.uid, self.gid)
        if not check_mode:
            if wrong_owner:
                os.chown(self.path, self.uid, self.gid)
            if wrong_mode or wrong_owner:
                os.chmod(self.path, self.mode)
        return wrong_mode or wrong_owner

    def restore(self):
        if self.changed and self.state != "directory":
            self.former.restore()

    def diff(self):
        after = self.text if self.state in {"file", "once"} else None
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": self.former.text,
            "after": after if after is not None else f"{self.state} {self.sha256 or self.target or ''}\n",
        }


def apply(entries, check, check_mode, job):
    """Validate everything, then change what differs; put it all back if the set as a whole is refused."""
    for entry in entries:
        entry.validate()
    if not check_mode and any(entry.apply(check_mode=True) for entry in entries):
        pending.begin(job)
    for entry in entries:
        entry.apply(check_mode)
    if check and not check_mode and any(entry.changed for entry in entries):
        error = run(check)
        if error:
            for entry in entries:
                entry.restore()
            raise Invalid(f"The files were put back as they were, because `{' '.join(check)}` says: {error}")


def specification():
    entry = {
        "path": {"type": "path", "required": True},
        "state": {"choices": ["file", "once", "directory", "link", "absent"], "default": "file"},
        "content": {"type": "str"},
        "sha256": {"type": "str"},
        "target": {"type": "str"},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "str"},
        "validate": {"type": "list", "elements": "str"},
    }
    return {
        "entries": {"type": "list", "elements": "dict", "required": True, "options": entry},
        "check": {"type": "list", "elements": "str"},
        "target": {"type": "str", "required": True},
        "job": {"type": "dict"},
        "uploads": {"type": "dict", "default": {}},
    }


def main():
    module = AnsibleModule(specification(), supports_check_mode=True)
    uploads = module.params["uploads"]
    fence = contextlib.nullcontext() if module.check_mode else Fence(module.params["target"], module.params["job"])
    try:
        with fence:
            entries = [Entry(options, uploads, module.check_mode) for options in module.params["entries"]]
            wanted = [entry.path for entry in entries if entry.wanted and not module.check_mode]
            if not wanted:
                apply(entries, module.params["check"], module.check_mode, module.params["job"])
    except Refused as error:
        module.fail_json(msg=str(error), **error.facts)
    except (Invalid, OSError) as error:
        module.fail_json(msg=str(error))
    if wanted:
        module.exit_json(changed=True, wanted=wanted)
    changed = [entry for entry in entries if entry.changed]
    module.exit_json(
        changed=bool(changed),
        paths=[entry.path for entry in changed],
        files={entry.path: entry.intended for entry in entries if entry.managed},
        links={entry.path: entry.target for entry in entries if entry.state == "link"},
        diff=[entry.diff() for entry in changed],
    )


if __name__ == "__main__":
    main()
