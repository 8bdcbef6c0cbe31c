"""Runs on a node, as root, from standard input: every process of one user that is there at any moment, as it is held.

Ends when a file appears, or after a bound. Prints one JSON object for each process, and one that tells how it ended.
A process is told only if it was the same one, and alive, before and after all that was read of it. Standard library
only.
"""

import json
import os
import pwd
import stat
import subprocess
import sys
import time

SHOWN = (
    *("Id", "LoadState", "Slice", "User", "NoNewPrivileges", "CapabilityBoundingSet", "MemoryMax", "TasksMax"),
    *("CPUWeight", "IOWeight", "PrivateTmp", "ProtectSystem", "RestrictNamespaces", "SystemCallFilter"),
)
STATUS = ("NoNewPrivs", "CapBnd", "CapEff", "Seccomp", "Groups", "Gid")
KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "disk",
}
GONE = (FileNotFoundError, ProcessLookupError)
LOOKS = 20
"""At what is another thing whenever it is looked at again, before it is left for the next round."""


class Changed(Exception):
    """It became something else, or ended, while it was looked at."""


def main(user, seconds, stop):
    uid, ends, census = pwd.getpwnam(user).pw_uid, time.monotonic() + seconds, Census()
    print("ready", flush=True)
    while not os.path.exists(stop) and time.monotonic() < ends:
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                if os.stat("/proc/" + pid).st_uid == uid:
                    census.look(pid)
            except (*GONE, Changed):
                continue
        time.sleep(0.02)
    for one in census.seen.values():
        print(json.dumps(one))
    print(json.dumps({"ended": "stopped" if os.path.exists(stop) else "late"}))


class Census:
    def __init__(self):
        self.seen = {}
        self.units = {}

    def look(self, pid):
        """A process that execs is another one."""
        identity = who(pid)
        if is_the_sites(identity) and identity not in self.seen:
            found = described(pid)
            if who(pid) != identity:
                raise Changed
            found["words"] = identity[-1][:200]
            # systemd has the unit as long as something is in it, and may forget it as soon as nothing is.
            unit = self.unit_of(found["group"])
            self.seen[identity] = {**found, **unit}

    def unit_of(self, group):
        """What systemd says of a group's unit and of the slice that it is in; what it said of it while it was there.

        Both are empty where the unit was gone before it was asked for the first time.
        """
        *above, name = group.split("/")
        slices = [one for one in above if one.endswith(".slice")]
        found = shown([name, *slices[-1:]])
        if found.get(name, {}).get("LoadState") == "loaded":
            unit = found[name]
            inner = unit.get("Slice", "")
            self.units[group] = {"unit": unit, "slice": found.get(inner) or shown([inner]).get(inner, {})}
        return self.units.get(group, {"unit": {}, "slice": {}})


def who(pid):
    """What is another as soon as the process is: when it began, its program, and its words; none of one that ended."""
    # Its name, in brackets, may have any character.
    state, *fields = read(pid, "stat").rpartition(")")[2].split()
    if state in "ZX":
        raise Changed
    try:
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError as error:
        raise Changed from error
    return pid, fields[18], program, read(pid, "cmdline").replace("\0", " ").strip()


def is_the_sites(identity):
    """Whether it runs the site's code by now: what systemd starts is the site's before its sandbox is closed."""
    *_, program, words = identity
    name = os.path.basename(program)
    starts = name == "systemd-executor" or (name == "systemd" and words.startswith("("))
    return bool(words) and not starts


def read(pid, name):
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


def described(pid):
    status = fields_of(read(pid, "status"))
    found = {"pid": int(pid), "group": read(pid, "cgroup").strip().rpartition("::")[2]}
    found.update({name: status[name] for name in STATUS if name in status})
    if len(found) < len(STATUS) + 2:
        raise Changed
    found["uid"] = int(status["Uid"].split()[0])
    found["limits"] = {line[:26].strip(): line[26:47].strip() for line in read(pid, "limits").splitlines()[1:]}
    found["descriptors"] = descriptors(pid, found["uid"])
    found["sees"] = {
        top: there(pid, top) for top in ("/var/www/sites", "/etc/trueup/environments", "/root", "/run/dbus")
    }
    return found


def fields_of(text):
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def descriptors(pid, uid):
    """Each one that is open, as it is; what is closed meanwhile is none."""
    mounts = {line.split(" ", 1)[0] for line in read(pid, "mountinfo").splitlines()}
    found = (descriptor(pid, uid, number, mounts) for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))))
    return [one for one in found if one]


def descriptor(pid, uid, number, mounts):
    """What tells whether a process may have opened it by itself.

    ``here``: by a mount of its own name space; ``reached``: its name leads to it, through directories that let
    everybody pass; ``peer``: whom a socket of another's leads to; ``locks``: each that it holds, by what it is and by
    whether this process took it.
    """
    link = f"/proc/{pid}/fd/{number}"
    for _ in range(LOOKS):
        try:
            target, status, more = os.readlink(link), os.stat(link), read(pid, f"fdinfo/{number}")
            reached = is_reached(pid, target, status)
            # Its number, or its name, is another's by now: it is looked at anew.
            if (os.readlink(link), inode(os.stat(link))) != (target, inode(status)):
                continue
        except GONE:
            return None
        lines = [line.split(":", 1) for line in more.splitlines() if ":" in line]
        facts = {name: value.strip() for name, value in lines}
        flags = int(facts["flags"], 8)
        is_anothers = stat.S_ISSOCK(status.st_mode) and number > 2 and status.st_uid != uid
        return {
            "fd": number,
            "target": target,
            "kind": KINDS.get(stat.S_IFMT(status.st_mode), "other"),
            "mode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "reads_only": flags & os.O_ACCMODE == os.O_RDONLY,
            "here": facts.get("mnt_id") in mounts,
            "reached": reached,
            "peer": peer(target) if is_anothers else "",
            "locks": [lock(value, pid) for name, value in lines if name == "lock"],
        }
    raise Changed


def inode(status):
    return status.st_dev, status.st_ino


def lock(line, pid):
    """As in ``1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF``."""
    words = line.split()
    return {"is_shared": "READ" in words, "is_its_own": pid in words[3:5]}


def peer(target):
    """The name of whom a socket is connected to; empty where it has none."""
    argv = ["ss", "--unix", "--all", "--numeric", "--no-header"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    # u_str ESTAB 0 0 NAME INODE * INODE-OF-THE-OTHER
    lines = [words for words in map(str.split, done.stdout.splitlines()) if len(words) >= 8]
    others = {words[7] for words in lines if target == f"socket:[{words[5]}]"}
    return next((words[4] for words in lines if words[5] in others and words[4] != "*"), "")


def is_reached(pid, target, status):
    """Whether the name, as the process finds it, leads to this file: to none where it was removed meanwhile."""
    if not target.startswith("/"):
        return False
    path, removed, _ = target.partition(" (deleted)")
    top = f"/proc/{pid}/root"
    parts = path.strip("/").split("/")
    for depth in range(len(parts)):
        try:
            above = os.lstat("/".join([top, *parts[:depth]]) + "/")
        except OSError:
            return False
        if not above.st_mode & stat.S_IXOTH:
            return False
    if removed:
        return True
    try:
        return inode(os.lstat("/".join([top, *parts]))) == inode(status)
    except OSError:
        return False


def there(pid, top):
    """As the process finds it, but with root's eyes."""
    try:
        return sorted(os.listdir(f"/proc/{pid}/root{top}"))
    except OSError:
        return []


def shown(names):
    """What systemd says of each unit, by its name."""
    argv = ["systemctl", "show", "--property=" + ",".join(SHOWN), "--", *(name for name in names if name)]
    if argv[-1] == "--":
        return {}  # systemd would tell of itself
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in done.stdout.split("\n\n")
    ]
    return {block["Id"]: block for block in blocks if "Id" in block}


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
