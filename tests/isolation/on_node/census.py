"""Runs on a node, as root, from standard input: every process of one user that is there at any moment, as it is held.

Ends when a file appears, or after a bound. Prints one JSON object for each process. Standard library only.
"""

import json
import os
import pwd
import subprocess
import sys
import time

SHOWN = (
    *("Id", "Slice", "User", "NoNewPrivileges", "CapabilityBoundingSet", "MemoryMax", "TasksMax", "CPUWeight"),
    *("IOWeight", "PrivateTmp", "ProtectSystem", "RestrictNamespaces", "SystemCallFilter"),
)


def main(user, seconds, stop):
    uid, ends, seen = pwd.getpwnam(user).pw_uid, time.monotonic() + seconds, {}
    print("ready", flush=True)
    while time.monotonic() < ends and not os.path.exists(stop):
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                if os.stat("/proc/" + pid).st_uid == uid:
                    look(pid, seen)
            except (FileNotFoundError, ProcessLookupError):
                continue
        time.sleep(0.02)
    for one in seen.values():
        print(json.dumps(one))


def look(pid, seen):
    """A process that execs is another one: what systemd starts is the site's before its sandbox is closed."""
    words = read(pid, "cmdline").replace("\0", " ").strip()
    key = pid, words[:60]
    if words and not words.startswith("(") and key not in seen:
        seen[key] = described(pid, words)


def read(pid, name):
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


def described(pid, words):
    status = dict(line.split(":\t", 1) for line in read(pid, "status").splitlines() if ":\t" in line)
    group = read(pid, "cgroup").strip().rpartition("::")[2]
    found = {"pid": int(pid), "words": words[:200], "group": group}
    found.update(
        {name: status.get(name, "").strip() for name in ("NoNewPrivs", "CapBnd", "CapEff", "Seccomp", "Groups", "Gid")}
    )
    found["limits"] = {line[:26].strip(): line[26:47].strip() for line in read(pid, "limits").splitlines()[1:]}
    found["descriptors"] = sorted({target(pid, fd) for fd in os.listdir(f"/proc/{pid}/fd")})
    found["sees"] = {
        top: there(pid, top) for top in ("/var/www/sites", "/etc/trueup/environments", "/root", "/run/dbus")
    }
    found["unit"] = unit(group.rpartition("/")[2])
    found["slice"] = unit(found["unit"].get("Slice", ""))
    return found


def target(pid, fd):
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""


def there(pid, top):
    """As the process finds it, but with root's eyes."""
    try:
        return sorted(os.listdir(f"/proc/{pid}/root{top}"))
    except OSError:
        return []


def unit(name):
    if not name:
        return {}
    argv = ["systemctl", "show", "--property=" + ",".join(SHOWN), name]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
