# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The sandbox in which a site's code runs, said once: for the units of an environment and for every single run.

A single run is a transient service of systemd's. It has nothing of the process that asks for it but three pipes, ends
with all that it started, and ends with the job. Stdlib only: the reconciler loads this file by its path for logins.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import threading

DISABLED_FUNCTIONS = (
    "exec,passthru,shell_exec,system,proc_open,proc_close,proc_get_status,proc_nice,proc_terminate,popen,pcntl_exec,"
    "pcntl_fork,pcntl_signal,posix_kill,posix_setuid,posix_setgid,dl,symlink,link,show_source,highlight_file"
)
LONGEST_S = 900
MOST_OUTPUT = 1 << 20
"""Bytes of a stream that are read of what a site's code says; a run that says more has failed."""

_EVERYWHERE = (
    ("UMask", "0022"),
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectProc", "invisible"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
    ("LockPersonality", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged @resources"),
    ("SystemCallErrorNumber", "EPERM"),
    ("LimitCORE", "0"),
    ("LimitNOFILE", "8192"),
    ("LimitFSIZE", "16G"),
)
# The neighbours do not exist in here, and neither does what the node knows about them.
_HIDDEN = "/var/www/sites:ro /etc/trueup:ro /run/trueup-php:ro"
# The last three would start something outside: systemd by its bus or its own door, cron by a table of the user's.
_CLOSED = (
    "-/var/cache/nginx -/var/log/nginx -/root -/etc/nginx -/var/lib/trueup -/run/trueup -/run/redis "
    "-/run/dbus -/run/systemd/private -/var/spool/cron"
)
# Would look up names for whoever asks, whatever words are in them. The directories, because a socket that is made anew
# would be seen again. Whoever reaches others needs the first: it says which servers are asked.
_OF_NAMES = "-/run/systemd/resolve -/run/nscd -/run/avahi-daemon"
# Of a single run alone; those of the units follow from what the environment's variable says.
_OF_A_RUN = (
    ("MemoryMax", "2G"),
    ("TasksMax", "128"),
    ("LimitNPROC", "1024"),
    ("LimitDATA", "2G"),
    # What it left behind when it ended is nobody's to wait for.
    ("KillSignal", "SIGKILL"),
    ("TimeoutStopSec", "5"),
)
DEFAULT_WEIGHT = 100
_numbers = itertools.count()


def resources(variables):
    """The most that an environment may take, as numbers by name: what its variable says, or what its PHP needs.

    ``memory_mb tasks cpu_weight io_weight`` of all its processes; ``*_memory_mb`` and ``php_tasks`` of one unit's;
    ``data_mb`` of one process.
    """
    declared = {name: value for name, value in (variables.get("resources") or {}).items() if value is not None}
    request, children = variables["php"]["memory_limit_mb"], variables["php"]["max_children"]
    pool = max(request * children + 256, 512)
    memory = declared.get("memory_mb", pool + 2 * request + 512)
    tasks = declared.get("tasks", children * 4 + 256)
    redis = min(max(memory // 32, 32), 512)
    return {
        "memory_mb": memory,
        "tasks": tasks,
        "cpu_weight": declared.get("cpu_weight", DEFAULT_WEIGHT),
        "io_weight": declared.get("io_weight", DEFAULT_WEIGHT),
        "php_memory_mb": min(pool, memory),
        "php_tasks": min(children * 4 + 32, tasks),
        "cron_memory_mb": min(2 * request + 256, memory),
        "redis_objects_mb": redis,
        "redis_memory_mb": min(2 * redis + 64, memory),
        "data_mb": 2 * request + 512,
    }


def is_closed_here(layout):
    """Whether this node's firewall is to close the environment, as its own file says."""
    try:
        with open(layout.egress, encoding="ascii") as file:
            return " closed { " in file.read()
    except FileNotFoundError:
        return False


def properties(layout, *, is_closed):
    """Settings of a ``[Service]`` as pairs, in the order in which a unit has them; a name may come twice.

    ``is_closed``: it reaches no other host, and has nobody look up names for it.
    """
    return (
        ("User", layout.user),
        ("Group", layout.user),
        ("Slice", layout.slice),
        *_EVERYWHERE,
        ("TemporaryFileSystem", _HIDDEN),
        ("BindPaths", layout.site),
        ("BindReadOnlyPaths", f"-/etc/trueup/php/{layout.id}"),
        # The hosts that it may reach, and not those of its neighbours.
        *([("BindReadOnlyPaths", f"-{layout.own_hosts}:/etc/hosts")] if is_closed else []),
        ("InaccessiblePaths", f"{_CLOSED} {_OF_NAMES}" if is_closed else _CLOSED),
    )


def command(layout, argv, *, environment=None, seconds=LONGEST_S, scope=None, unit=None, group=None, is_closed=None):
    """An argv, for root, that runs ``argv`` in the environment's sandbox and answers with its output and exit status.

    ``environment``: variables, which every user of the node may read. ``seconds``: after so long the run is ended.
    ``scope``: the unit of the job, with which it ends too. ``unit``: part of its name, where this process is not alone.
    ``group``: one that the node's firewall lets out, where the environment's own is closed: it has names looked up.
    ``is_closed``: of whoever is not on the node, which says it.
    """
    name = f"trueup-run-{layout.short}-{unit or f'{os.getpid()}-{next(_numbers)}'}.service"
    if is_closed is None:
        is_closed = is_closed_here(layout)
    settings = [*properties(layout, is_closed=is_closed and not group), *_OF_A_RUN, ("RuntimeMaxSec", str(seconds))]
    settings += [("BindsTo", scope), ("After", scope)] if scope else []
    settings += [("Group", group), ("SupplementaryGroups", layout.user)] if group else []
    variables = {"LC_ALL": "C.UTF-8", **(environment or {})}
    return [
        *("systemd-run", "--quiet", "--collect", "--pipe", "--wait", f"--unit={name}"),
        *(f"--property={key}={value}" for key, value in settings),
        *(f"--setenv={key}={value}" for key, value in variables.items()),
        "--",
        # systemd would put its own variables in place of what looks like one.
        *(word.replace("$", "$$") for word in argv),
    ]


def start(run, layout, argv, *, environment=None, seconds=LONGEST_S, group=None):
    """The running command, of which ``run.wait`` tells the output.

    systemd-run, which is root's, has the run's lock; what it started has not.
    """
    ordered = command(layout, argv, environment=environment, seconds=seconds, scope=run.scope, group=group)
    return run.start(ordered, process=Bounded)


def ask(run, layout, argv, *, text="", environment=None, seconds=LONGEST_S, group=None, hint=""):
    """Standard output of a command that runs in the sandbox; a Failure where it fails."""
    started = start(run, layout, argv, environment=environment, seconds=seconds, group=group)
    return run.wait(started, text=text, hint=hint)


def end_all(run, layout):
    """End what a killed run may have left running."""
    run.command(["systemctl", "stop", f"trueup-run-{layout.short}-*.service"])


class Bounded(subprocess.Popen):
    """A process that may say anything, for any length: no more than ``MOST_OUTPUT`` of a stream is kept or read."""

    def communicate(self, input=None, timeout=None):
        found = [b"", b""]
        readers = [
            threading.Thread(target=self._read, args=(found, number), daemon=True) for number in range(len(found))
        ]
        writer = threading.Thread(target=self._write, args=(input or b"",), daemon=True)
        for thread in (writer, *readers):
            thread.start()
        self.wait(timeout)
        for thread in (*readers, writer):
            thread.join(5)
        for stream in (self.stdout, self.stderr):
            stream.close()
        if max(map(len, found)) > MOST_OUTPUT:
            self.returncode = self.returncode or 1
            found = [b"", b"It said more than a megabyte, and nobody listened any longer."]
        return tuple(found)

    def _read(self, found, number):
        stream = (self.stdout, self.stderr)[number]
        found[number] = stream.read(MOST_OUTPUT + 1)
        stream.close()

    def _write(self, data):
        try:
            self.stdin.write(data)
            self.stdin.close()
        except OSError:
            pass  # it ended, or never listened
