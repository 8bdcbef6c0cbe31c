# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Starts an environment's PHP anew without a visitor's noticing: a second one answers meanwhile.

The second is the same unit under another name, with a socket of its own. nginx is told of it, then told of it no more.
A run that is killed on the way leaves visitors with either, and the next run does it all again.
"""

from __future__ import annotations

import contextlib
import os
import re

from ansible_collections.trueup.wordpress.plugins.module_utils import nginx
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import units
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read, write_durably

UNITS = "/run/systemd/system"


class Bridge:
    def __init__(self, run, layout):
        self.run = run
        self.layout = layout
        self.name = f"trueup-bridge-{layout.short}"
        self.unit = f"{UNITS}/{self.name}.service"
        self.pool = f"{os.path.dirname(layout.pool)}/bridge.conf"
        self.socket = f"/run/{self.name}/fpm.sock"
        self.upstream = re.sub(r"\W", "_", self.name)

    def is_left(self):
        """Whether a run was killed on the way."""
        return os.path.exists(self.unit)

    def restart(self):
        """Stop PHP gracefully and start it with the files that are there now; systemd has read them already."""
        block = self._block()
        if block is None:
            self._systemctl("restart", self.layout.php_service)
            return
        self._open()
        try:
            self._serve(self._bridged(block))
        except Failure as error:
            # Somebody's file is in the way, this block or another: PHP starts anew all the same.
            self.run.notes.append(f"Visitors were not led past the restart of PHP. {error}")
            self._systemctl("restart", self.layout.php_service)
        else:
            self._systemctl("restart", self.layout.php_service)
            self._serve(block)
        self.close()

    def close(self):
        """Whoever the second PHP is answering is answered; then nothing is left of it."""
        self._systemctl("stop", f"{self.name}.service")
        for path in (self.unit, self.pool):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _systemctl(self, verb, unit):
        self.run.command(["systemctl", verb, unit], hint=f"systemd did not {verb} {unit}")

    def _open(self):
        pool = (read(self.layout.pool) or b"").decode("utf-8")
        unit = (read(self.layout.unit_file(self.layout.php_service)) or b"").decode("utf-8").partition("[Install]")[0]
        pool = _replaced(pool, r"^listen = .*$", f"listen = {self.socket}")
        unit = _replaced(unit, r"^(ExecStart=.*) --fpm-config \S+$", rf"\1 --fpm-config {self.pool}")
        unit = _replaced(unit, r"^RuntimeDirectory=.*$", f"RuntimeDirectory={self.name}")
        unit = _replaced(unit, r"^(Description=.*)$", r"\1, while the other one starts")
        write_durably(self.pool, pool.encode(), 0o644)
        os.makedirs(UNITS, exist_ok=True)
        write_durably(self.unit, unit.encode(), 0o644)
        self._systemctl("restart", f"{self.name}.service")

    # The server block

    def _block(self):
        """As it is without the bridge; None where nobody is sent to this PHP."""
        text = (read(self.layout.server_block) or b"").decode("utf-8", "surrogateescape")
        text = self._without(text)
        return text if self._direct() in text else None

    def _without(self, text):
        return text.replace(self._declared(), "").replace(self._passed(), self._direct())

    def _bridged(self, block):
        return self._declared() + block.replace(self._direct(), self._passed())

    def _direct(self):
        return f"fastcgi_pass unix:{self.layout.socket};"

    def _passed(self):
        return f"fastcgi_pass {self.upstream};"

    def _declared(self):
        """After a reboot there is no second PHP: nginx turns to the first."""
        return (
            f"upstream {self.upstream} {{\n"
            f"    server unix:{self.socket} max_fails=0;\n"
            f"    server unix:{self.layout.socket} backup;\n"
            "}\n"
        )

    def _serve(self, text):
        """Have nginx read the block, and wait until nobody is served by a worker that had read another one."""
        former = read(self.layout.server_block)
        write_durably(self.layout.server_block, text.encode("utf-8", "surrogateescape"), 0o644)
        units.have_read(self.run, self.layout, former)
        nginx.until_replaced(self.run.former_workers)
        nginx.until_gone(self.run.former_workers)


def _replaced(text, expression, by):
    found, count = re.subn(expression, by, text, flags=re.MULTILINE)
    if count != 1:
        raise Failure(f"The environment's own PHP has {count} of {expression!r}, not one.")
    return found
