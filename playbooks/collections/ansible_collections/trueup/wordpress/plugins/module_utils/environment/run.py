# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""One run of the module: what it changes, whether it may, and the mark on the node that it is at work.

Every change is told to ``Run.change`` before it is made. So check mode needs no second code path, the diff is complete,
and the mark is on disk before the first change: whoever finds it knows that files may be newer than what runs.
"""

from __future__ import annotations

import os
import subprocess

from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths


class Failure(Exception):
    """The run cannot go on; ``facts`` go into the module's result."""

    def __init__(self, message, **facts):
        super().__init__(message)
        self.facts = facts


class Run:
    def __init__(self, check_mode, pending, job):
        self.check_mode = check_mode
        self.pending = pending
        self.job = job or {}
        self.interrupted = os.path.exists(pending)
        self.diff = []
        self.notes = []
        self.inherited = ()
        self.scope = None
        """The unit that this run works in, by whose name it is ended."""
        self.former_workers = set()
        """Those of nginx's that listened when this run had it reload."""

    @property
    def changed(self):
        return bool(self.diff)

    def change(self, what, before="", after=""):
        """Note a change that is about to be made; whether to make it."""
        self.diff.append(
            {"before_header": what, "after_header": what, "before": _ended(before), "after": _ended(after)}
        )
        if not self.check_mode and len(self.diff) == 1 and not self.interrupted:
            self.mark()
        return not self.check_mode

    def mark(self):
        """Note on the node that a change has begun."""
        os.makedirs(os.path.dirname(self.pending), exist_ok=True)
        write_durably(self.pending, f"{self.job.get('id', 'by hand')}\n".encode(), 0o644)

    def end(self):
        """Everything that was changed is in force and written down."""
        if os.path.exists(self.pending):
            os.unlink(self.pending)

    def command(self, argv, *, text="", user=None, environment=None, hint=""):
        """Standard output of a command. ``hint`` tells what failed, in front of the command's own words."""
        return self.wait(self.start(argv, user=user, environment=environment), text=text, hint=hint)

    def start(self, argv, *, user=None, environment=None, feed=None, process=subprocess.Popen):
        """A running command of ours, as ``user`` (of the password database) or as root, that reads ``feed``.

        A site's code is never started so, but by module ``sandbox``.
        """
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        return process(
            argv,
            stdin=feed or subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **(environment or {})},
            # A child keeps the lock: while anything of this run is alive, nobody else works on the environment.
            pass_fds=self.inherited,
            **identity,
        )

    def wait(self, process, *, text="", hint=""):
        output, error = process.communicate(text.encode())
        if process.returncode != 0:
            said = (error or output).decode("utf-8", "replace").strip()[-2000:]
            name = os.path.basename(process.args[0])
            raise Failure(f"{hint or f'{name} failed'} (exit status {process.returncode}): {said}")
        return output.decode("utf-8", "replace")


class Beside(Run):
    """A run that prepares beside what is served. Nothing served changes, so there is no mark to leave."""

    def mark(self):
        pass


def write_durably(path, data, mode, uid=0, gid=0):
    """Replace a file by a rename: a reader, or a crash, sees the old one or the new one."""
    paths.replace(path, data, mode, uid, gid)


def read(path):
    """A regular file's bytes; None where there is none, or one that is too large to be read whole."""
    return paths.read(path)


def _ended(text):
    return f"{text}\n" if text and not text.endswith("\n") else text
