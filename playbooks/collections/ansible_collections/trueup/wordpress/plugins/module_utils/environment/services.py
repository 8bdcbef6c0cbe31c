# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What runs of an environment: its Redis, its PHP and its timer, in a slice of their own."""

from __future__ import annotations

import contextlib
import os

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import caches, place, sandbox, units
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import layout as names
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.bridge import Bridge, forget_sockets
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.database import end_connections

CRON_TABLES = "/var/spool/cron/crontabs"


class Services:
    """The units with the files that they read, compared with what systemd says. ``texts``: by name in the layout."""

    def __init__(self, run, layout, texts, *, keeps_objects):
        self.run = run
        self.layout = layout
        self.keeps_objects = keeps_objects
        self.php = units.Unit(layout.php_service, "multi-user.target")
        self.timer = units.Unit(layout.cron_timer, "timers.target")
        self.redis = units.Unit(layout.redis_service, "multi-user.target")
        self.units = [*([self.redis] if keeps_objects else []), self.php, self.timer]
        redis = {layout.redis_settings: texts[names.REDIS], self.redis.file: texts[names.REDIS_UNIT]}
        self.files = {
            layout.unit_file(layout.slice): texts[names.SLICE],
            **(redis if keeps_objects else {}),
            layout.pool: texts[names.POOL],
            self.php.file: texts[names.PHP_UNIT],
            layout.unit_file(layout.cron_service): texts[names.CRON_UNIT],
            self.timer.file: texts[names.CRON_TIMER],
        }
        self.found = {}

    @property
    def names(self):
        """Those that are to be active and enabled."""
        return [unit.name for unit in self.units]

    def start_early(self):
        """Have what is new start meanwhile; ``ensure`` waits for it, and brings the timer, which has nothing to run.

        Objects that an earlier version kept in the node's Redis go: the environment's own begins without any.
        """
        settings = {self.redis: self.layout.redis_settings, self.php: self.layout.pool}
        new = [unit for unit in self.units if unit in settings and not os.path.exists(unit.file)]
        if self.run.check_mode or not new:
            return
        with contextlib.suppress(caches.RedisError, OSError):
            caches.forget_shared(self.layout)
        wanted = [self.layout.unit_file(self.layout.slice), *(settings[unit] for unit in new)]
        for path in (*wanted, *(unit.file for unit in new)):
            place.file(self.run, path, self.files[path])
        self._systemctl(["start", "--no-block"], new)

    def ensure(self):
        """Make the units active and enabled with the files that they are to have now."""
        self.found = units.states(self.run, [unit.name for unit in (self.redis, self.php, self.timer)])
        # It would run the site's code outside of its sandbox.
        place.absent(self.run, f"{CRON_TABLES}/{self.layout.user}")
        known = {path for path in self.files if os.path.exists(path)}
        changed = {path for path, text in self.files.items() if place.file(self.run, path, text)}
        gone = not self.keeps_objects and self._remove_redis()
        if not self.run.check_mode and (changed & known or gone or self.run.interrupted or self._is_outdated()):
            self.run.command(["systemctl", "daemon-reload"])
        for unit in self.units:
            units.enable(self.run, unit)
        inactive = [unit for unit in self.units if not self._is_active(unit)]
        if self._is_down(self.php) and not self.run.check_mode:
            self._systemctl(["stop"], [self.php])
            forget_sockets(self.layout)
        self._do("start", inactive)
        running = [unit for unit in self.units if unit not in inactive]
        self._renew(running, {path for path in self.files if self.run.interrupted} | changed & known)

    @contextlib.contextmanager
    def at_rest(self):
        """Nothing of the site runs meanwhile, and nothing that it asked of its database. Afterwards it runs again."""
        names = [self.layout.cron_timer, self.layout.cron_service, self.layout.php_service]
        hint = f"systemd did not stop {' '.join(names)}"
        try:
            self.run.command(["systemctl", "stop", "--no-block", *names], hint=hint)
            # Nobody waits for the end of a request that may be what has to be stopped.
            self.run.command(["systemctl", "kill", "--signal=KILL", self.layout.php_service, self.layout.cron_service])
            self.run.command(["systemctl", "stop", *names], hint=hint)
            sandbox.end_all(self.run, self.layout)
            end_connections(self.layout.database)
            yield
        finally:
            # Also where it did not come to rest: a site that could be served is not left without its PHP.
            forget_sockets(self.layout)
            self._systemctl(["start"], [self.php, self.timer])

    def _renew(self, running, changed):
        """Have those that run read the files that changed."""
        if self.redis in running and {self.redis.file, self.layout.redis_settings} & changed:
            self._do("restart", [self.redis])
        if self.timer in running and self.timer.file in changed:
            self._do("restart", [self.timer])
        bridge = Bridge(self.run, self.layout)
        if bridge.is_left() or (self.php in running and self.php.file in changed):
            self._do("restart", [self.php], bridge.restart)
        elif self.php in running and self.layout.pool in changed:
            former = units.workers(self.run, self.php)
            self._do("reload", [self.php])
            units.until_gone(former)

    def _remove_redis(self):
        """No objects are kept any more; whether there was a Redis."""
        if self._is_active(self.redis):
            self._do("stop", [self.redis])
        paths = (self.redis.wish, self.redis.file, self.layout.redis_settings)
        gone = [place.absent(self.run, path) for path in paths]
        return any(gone)

    def _is_active(self, unit):
        return self.found[unit.name].get("ActiveState") == "active"

    def _is_down(self, unit):
        """Whether nobody is starting it for the first time either; systemd may be trying again and again.

        A start of systemd's own that is under way may fail as those before it, and a start that is asked for with it.
        """
        state = self.found[unit.name]
        tried_before = state.get("SubState") == "auto-restart" or state.get("NRestarts", "0") != "0"
        is_trying_again = state.get("ActiveState") == "activating" and tried_before
        return is_trying_again or state.get("ActiveState") in ("inactive", "failed")

    def _is_outdated(self):
        return any(state.get("NeedDaemonReload") == "yes" for state in self.found.values())

    def _do(self, verb, chosen, act=None):
        if not chosen:
            return
        wanted = "inactive" if verb == "stop" else "active"
        before = "\n".join(f"{unit.name} {self.found[unit.name].get('ActiveState')}" for unit in chosen)
        after = "\n".join(f"{unit.name} {wanted}" for unit in chosen)
        if self.run.change(f"{verb} {' '.join(unit.name for unit in chosen)}", before, after):
            if act:
                act()
            else:
                self._systemctl([verb], chosen)

    def _systemctl(self, words, chosen):
        told = " ".join(unit.name for unit in chosen)
        argv = ["systemctl", *words, *(unit.name for unit in chosen)]
        self.run.command(argv, hint=f"systemd did not {words[0]} {told}")
