# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The driver for MariaDB, package ``python3-pymysql``. The node's baseline installs it.

After an upgrade of the control plane a job may come to a node before its baseline does. Then the job installs the
package itself: nothing that was accepted fails for it, and no order of jobs has to be kept.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
import threading
import time

from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure

PACKAGE = "python3-pymysql"
INSTALL_S = 240
AGAIN_S = 60
"""How long to wait for another run that installs it."""
APT = "apt-get --quiet --yes --no-install-recommends --no-upgrade -o DPkg::Lock::Timeout=120 install"
SCRIPT = f"{APT} {PACKAGE} || {{ apt-get --quiet update; {APT} {PACKAGE}; }}"
# A unit of its own: a job that is cancelled leaves no half-installed package.
INSTALL = ("systemd-run", "--quiet", "--wait", "--collect", "--unit=trueup-driver.service")
INSTALL += ("--setenv=DEBIAN_FRONTEND=noninteractive", "--setenv=NEEDRESTART_SUSPEND=1", "sh", "-c", SCRIPT)


_loading = threading.Lock()
"""Two threads that import it for the first time see each other's halves of it, and each takes it for missing."""


# The protocol: what a packet, or a value in it, begins with.
END, REFUSED, NULL = 0xFE, 0xFF, 0xFB
SHORT, WHOLE = 9, 0xFFFFFF
WIDTHS = {0xFC: 2, 0xFD: 3, 0xFE: 8}


class Missing(Failure):
    """The node has no driver, and this run may install none."""


def loaded():
    """The package pymysql."""
    with _loading:
        found = _found() or _installed()
    if found is None:
        raise Missing(
            f"This node lacks {PACKAGE}. Apply the node's baseline first: playbooks/node.yml. What kept a job from "
            "installing it is in `journalctl -u trueup-driver`."
        )
    return found


def unbuffered(cursor):
    """Rows of an answer that is under way, as tuples of bytes. A third of what the driver's own way takes for each."""
    read = cursor.connection._rfile.read
    while True:
        data = _packet(read)
        if data[0] == END and len(data) < SHORT:
            return
        if data[0] == REFUSED:
            _found().err.raise_mysql_exception(data)
        row, at, end = [], 0, len(data)
        while at < end:
            size = data[at]
            at += 1
            if size == NULL:
                row.append(None)
                continue
            if size > NULL:
                width = WIDTHS[size]
                size = int.from_bytes(data[at : at + width], "little")
                at += width
            row.append(data[at : at + size])
            at += size
        # A row may be large: while somebody works with it, it is there once.
        del data
        yield tuple(row)


def _packet(read):
    parts, length = [], WHOLE
    while length == WHOLE:
        head = read(4)
        if len(head) < 4:
            raise _found().err.OperationalError(2013, "Lost connection to MariaDB during query")
        length = head[0] | head[1] << 8 | head[2] << 16
        part = read(length)
        if len(part) < length:
            raise _found().err.OperationalError(2013, "Lost connection to MariaDB during query")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _installed():
    """The package, after this run has had it installed; None where it may not, or cannot."""
    if not _is_at_work():
        return None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(INSTALL, stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALL_S, check=False)
    return _awaited()


def _found():
    importlib.invalidate_caches()
    try:
        return importlib.import_module("pymysql")
    except ImportError:
        # Half of it may be there already.
        for name in [name for name in sys.modules if name.partition(".")[0] == "pymysql"]:
            del sys.modules[name]
    return None


def _awaited():
    deadline = time.monotonic() + AGAIN_S
    while (found := _found()) is None and time.monotonic() < deadline and _is_installed_now():
        time.sleep(0.5)
    return found


def _is_installed_now():
    argv = ["systemctl", "is-active", "--quiet", "trueup-driver.service"]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _is_at_work():
    """Whether this process is in the scope of a run that may change the node: a check run has none."""
    with open("/proc/self/cgroup", encoding="ascii", errors="replace") as file:
        return "/trueup-" in file.read()
