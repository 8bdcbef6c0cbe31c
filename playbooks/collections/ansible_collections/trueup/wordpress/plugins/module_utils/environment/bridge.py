# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Starts an environment's PHP anew without a visitor's noticing: a second one answers meanwhile.

The second is the same unit under another name, with a socket of its own. nginx connects for each request to one path,
a link: it is led to the second's socket by a rename, and back by another as soon as the first one listens. nginx reads
nothing anew for it, as a worker that ends may cut off a request on a connection that it kept. A run that is killed on
the way leaves visitors with either, and the next run does it all again.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat

from ansible_collections.trueup.wordpress.plugins.module_utils import fastcgi
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import units
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read, write_durably
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

UNITS = "/run/systemd/system"
FORMER = "former.sock"
NEXT = "next.sock"
NOTHING = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/", "SCRIPT_FILENAME": "/nonexistent.php", "REQUEST_URI": "/"}
"""What PHP-FPM answers by itself, with 404: there is no such script."""


class Bridge:
    def __init__(self, run, layout):
        self.run = run
        self.layout = layout
        self.name = f"trueup-bridge-{layout.short}"
        self.unit = f"{UNITS}/{self.name}.service"
        self.pool = f"{os.path.dirname(layout.pool)}/bridge.conf"
        self.socket = layout.bridge

    def is_left(self):
        """Whether a run was killed on the way."""
        return os.path.exists(self.unit)

    def restart(self):
        """Stop PHP gracefully and start it with the files that are there now; systemd has read them already."""
        try:
            self._open()
            self._lead()
        except (Failure, OSError, ValueError) as error:
            # The site itself may have put something in the way: PHP starts anew all the same.
            self.run.notes.append(f"Visitors were not led past the restart of PHP. {error}")
            self._systemctl("stop", self.layout.php_service)
            forget_sockets(self.layout)
        self._systemctl("restart", self.layout.php_service)
        self._lead_back()
        self.close()

    def close(self):
        """Whoever the second PHP is answering is answered; then nothing is left of it."""
        _answer_all(self.socket, self.layout.user)
        self._systemctl("stop", f"{self.name}.service")
        for path in (self.unit, self.pool):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _systemctl(self, verb, unit):
        self.run.command(["systemctl", verb, unit], hint=f"systemd did not {verb} {unit}")

    def _open(self):
        """Have the second PHP listen. One that an earlier run left is answering visitors, maybe: it goes on."""
        pool = (read(self.layout.pool) or b"").decode("utf-8")
        unit = (read(self.layout.unit_file(self.layout.php_service)) or b"").decode("utf-8")
        write_durably(self.pool, moved_pool(pool, self.socket).encode(), 0o644)
        unit = _replaced(
            moved_unit(unit, self.pool, self.name), r"^(Description=.*)$", r"\1, while the other one starts"
        )
        os.makedirs(UNITS, exist_ok=True)
        write_durably(self.unit, unit.encode(), 0o644)
        self._systemctl("start", f"{self.name}.service")

    def _lead(self):
        """Lead nginx to the second PHP, and wait until the first has taken up whoever came before.

        The directory is the site's own: it is root's until PHP starts again, so that nothing in it is exchanged for
        something else, and a PHP that ends does not take the path away.
        """
        directory, door = os.path.split(self.layout.socket)
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(opened, 0, 0)
            for name in (FORMER, NEXT):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=opened)
            listener = self._listener(opened, door)
            if listener == door:
                os.link(door, FORMER, src_dir_fd=opened, dst_dir_fd=opened, follow_symlinks=False)
                listener = FORMER
            _led(self.socket, opened, door)
            if listener:
                _answer_all(f"{directory}/{listener}", self.layout.user)
        finally:
            for name in (FORMER, NEXT):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=opened)
            os.close(opened)

    def _lead_back(self):
        """Lead nginx to the first PHP again, which listens now."""
        directory, door = os.path.split(self.layout.socket)
        try:
            opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                _led(self.layout.listener, opened, door)
            finally:
                os.close(opened)
        except OSError as error:
            # The directory is the site's again, and it has put something in the way.
            self.run.notes.append(f"PHP started once more, as its site was in its way. {error}")
            self._systemctl("stop", self.layout.php_service)
            forget_sockets(self.layout)
            self._systemctl("start", self.layout.php_service)

    def _listener(self, directory, door):
        """The name of the first PHP's socket: at the path itself in an environment that an earlier version made."""
        for name in (os.path.basename(self.layout.listener), door):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.lstat(name, dir_fd=directory).st_mode):
                    return name
        return None


def _led(socket, directory, door):
    """Have the link ``door`` lead to ``socket``, without a moment in which there is none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(NEXT, dir_fd=directory)
    os.symlink(socket, NEXT, dir_fd=directory)
    os.rename(NEXT, door, src_dir_fd=directory, dst_dir_fd=directory)


def forget_sockets(layout):
    """Whatever lies where PHP, which does not run, will make its sockets."""
    directory = os.path.dirname(layout.socket)
    if paths.is_directory(directory):
        paths.remove(directory)


def moved_pool(pool, socket):
    """The text of an environment's pool that listens elsewhere."""
    return _replaced(pool, r"^listen = .*$", f"listen = {socket}")


def moved_unit(unit, pool, directory):
    """The text of an environment's PHP unit with another pool and runtime directory, which nobody enables."""
    unit = unit.partition("[Install]")[0]
    unit = _replaced(
        unit, r"^ExecStart=(?:.* )?(/\S+/php-fpm[0-9.]+) .*$", rf"ExecStart=\1 --nodaemonize --fpm-config {pool}"
    )
    unit = _replaced(unit, r"^RuntimeDirectory=.*$", f"RuntimeDirectory={directory}")
    return re.sub(r"^RuntimeDirectoryPreserve=.*\n", "", unit, flags=re.MULTILINE)


def _answer_all(socket, user):
    """Return once PHP has taken up all who connected before now, as it takes one after the other."""
    with contextlib.suppress(OSError, ValueError):
        fastcgi.request(socket, user, NOTHING, units.LONGEST_REQUEST_S)


def _replaced(text, expression, by):
    found, count = re.subn(expression, by, text, flags=re.MULTILINE)
    if count != 1:
        raise Failure(f"The environment's own PHP has {count} of {expression!r}, not one.")
    return found
