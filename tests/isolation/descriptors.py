"""Whether a process opened each of its descriptors by itself, or was left them by whoever started it.

What it can have opened is what it may open where it is. All else is root's: a lock, a log, a directory of another name
space, a file that is not for everybody. The facts are those of `on_node/census.py`.
"""

from collections.abc import Mapping
from typing import Any

from tests.isolation.hacked import Hacked

FOR_EVERYBODY = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")}
OF_ITS_KERNEL = {f"anon_inode:[{name}]" for name in ("eventpoll", "eventfd", "timerfd", "signalfd")} | {
    "anon_inode:inotify"
}
"""Such as have no owner, and lead nowhere."""
JOURNAL = "/run/systemd/journal/stdout"
"""PHP's master keeps another number of what its unit complains by, and its children are born with it."""
NEVER = ("/etc/trueup/", "/run/trueup", "/var/lib/trueup/", "/var/log/", "/root/")
"""Trueup's and root's own, whatever their modes are."""
Facts = Mapping[str, Any]


def places_of(hacked: Hacked) -> tuple[str, ...]:
    """Where a site's processes keep what is theirs, in their own name space."""
    own = tuple(f"/run/trueup-{name}/{hacked.id}/" for name in ("php", "redis"))
    return (f"{hacked.site}/", "/tmp/", "/var/tmp/", *own)


def inherited(process: Facts, places: tuple[str, ...]) -> list[str]:
    """What a process has open that it cannot have opened by itself."""
    return [_told(one) for one in process["descriptors"] if not _is_its_own(one, process, places)]


def _is_its_own(one: Facts, process: Facts, places: tuple[str, ...]) -> bool:
    target, is_made_by_it = one["target"], one["uid"] == process["uid"]
    if not target.startswith("/"):
        # A pipe and a socket belong to who made them; the first three are what a process reads, says, complains by.
        is_a_way = one["kind"] in {"pipe", "socket"}
        is_given = is_a_way and (one["fd"] <= 2 or one["peer"] == JOURNAL)
        return is_given or (is_made_by_it if is_a_way else target in OF_ITS_KERNEL)
    if target in FOR_EVERYBODY:
        return one["kind"] == "device"
    if target.startswith("/memfd:"):
        return is_made_by_it
    is_let_be = all(lock["is_shared"] and lock["is_its_own"] for lock in one["locks"])
    return one["here"] and (target.startswith(places) or (is_let_be and _may_be_opened(one, process["uid"])))


def _may_be_opened(one: Facts, uid: int) -> bool:
    """For reading: nothing outside of its places is its to write."""
    needed = {"file": 0o4, "directory": 0o5}.get(one["kind"], 0)
    is_for_it = one["mode"] & needed == needed or (one["uid"] == uid and one["mode"] & needed << 6 == needed << 6)
    return bool(needed and is_for_it and one["reads_only"] and one["reached"] and not one["target"].startswith(NEVER))


def _told(one: Facts) -> str:
    said = f"{one['fd']} → {one['target']}, a {one['kind']} {one['mode']:04o} of {one['uid']}"
    facts = {
        "to be written": not one["reads_only"],
        "of another name space": not one["here"],
        "not reached by its name": not one["reached"],
        "locked": one["locks"],
    }
    return ", ".join([said, *(name for name, is_so in facts.items() if is_so)])
