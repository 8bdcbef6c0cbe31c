# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Units of systemd's, and the server block that nginx reads."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import nginx
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import place
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read, write_durably

SYSTEM = "/etc/systemd/system"
LONGEST_REQUEST_S = 25
"""What PHP-FPM waits at the most, when it reloads, for requests that are being worked on; see the pool's template."""


def php_binaries():
    """Paths of the newest PHP-FPM and of the command-line PHP of the same version."""
    found = [re.search(r"(\d+)\.(\d+)$", path) for path in glob.glob("/usr/sbin/php-fpm[0-9]*.[0-9]*")]
    versions = sorted((int(one.group(1)), int(one.group(2))) for one in found if one)
    if not versions:
        raise Failure("This node has no PHP-FPM. Provision it first: playbooks/node.yml.")
    version = "{}.{}".format(*versions[-1])
    return {"@PHP_FPM@": f"/usr/sbin/php-fpm{version}", "@PHP@": f"/usr/bin/php{version}"}


def filled(text, values):
    """A rendered text with what only the node knows."""
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


class Unit:
    """One unit that is enabled and active."""

    def __init__(self, name, wanted_by):
        self.name = name
        self.wish = f"{SYSTEM}/{wanted_by}.wants/{name}"
        self.file = f"{SYSTEM}/{name}"


def states(run, names):
    """ActiveState, SubState, NRestarts (of services) and NeedDaemonReload by unit, asked in one call."""
    output = run.command(["systemctl", "show", "--property=Id,ActiveState,SubState,NRestarts,NeedDaemonReload", *names])
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in output.strip().split("\n\n")]
    return dict(zip(names, blocks))  # noqa: B905 - not in Python 3.9


def enable(run, unit):
    """As ``systemctl enable`` would, but without asking systemd to read every unit again."""
    if not run.check_mode:
        os.makedirs(os.path.dirname(unit.wish), exist_ok=True)
    return place.link(run, unit.wish, unit.file)


def workers(run, unit):
    """The processes that a unit's main process has started and that run now."""
    main = run.command(["systemctl", "show", "--property=MainPID", "--value", unit.name]).strip()
    return {pid for pid in _processes() if _parent(pid) == main}


def until_gone(pids):
    """Wait for processes to end, as those do that read a former configuration and finish what they work on."""
    deadline = time.monotonic() + LONGEST_REQUEST_S
    while any(_parent(pid) is not None for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)


def _processes():
    return [name for name in os.listdir("/proc") if name.isdecimal()]


def _parent(pid):
    """The pid of a process's parent; None where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else parent


# nginx


def ensure_server_block(run, layout, text):
    """Put the server block in place if nginx accepts it, and have nginx read it."""
    former = read(layout.server_block)
    changed = place.file(run, layout.server_block, text)
    if not run.check_mode and (changed or run.interrupted):
        have_read(run, layout, former)


def remove_server_block(run, layout):
    """Take the server block away, and have nginx forget it."""
    former = read(layout.server_block)
    changed = place.absent(run, layout.server_block)
    if not run.check_mode and (changed or run.interrupted):
        have_read(run, layout, former)


def have_read(run, layout, former):
    """Have nginx read the server block that is there, or put the former one back."""
    try:
        run.command(["nginx", "-t", "-q"])
    except Failure as error:
        _put_back(layout.server_block, former)
        raise Failure(_blame(layout, str(error))) from error
    nginx.until_replaced(run.former_workers)  # else those of a reload before would not be known yet
    run.former_workers |= nginx.accepting()
    run.command(["systemctl", "reload-or-restart", "nginx.service"], hint="nginx did not reload")


def _put_back(path, former):
    if former is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    else:
        write_durably(path, former, 0o644)


def _blame(layout, error):
    """Whose file it is that nginx refuses."""
    named = re.search(r" in (/\S+?):(\d+)", error)
    if named and named.group(1) != layout.server_block:
        return (
            f"nginx refuses {named.group(1)} (line {named.group(2)}), which is not this environment's file, and would "
            f"read nothing new until it is corrected. The server block was put back as it was. {error}"
        )
    return f"nginx refuses the new server block, so the former one was put back. {error}"
