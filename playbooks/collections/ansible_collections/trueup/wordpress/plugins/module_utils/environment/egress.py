# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the environment's code reaches other hosts: a copy's does not, by the node's firewall, whatever it does.

Its user is in a set of nftables', and in a file by which the set is filled whenever the rules are loaded anew. A closed
user's processes reach Unix sockets, and their own site at an address of the loopback that nginx has for no other site.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import grp
import ipaddress
import json
import os
import re
import subprocess

from ansible_collections.trueup.wordpress.plugins.module_utils.environment import layout as names
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import place
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read

TABLE = ("inet", "trueup_egress")
FILES = "/etc/trueup/egress.d"
FETCHING = "trueup-fetch"
LOCK = "/run/trueup/locks/egress"
LOOPBACK = ipaddress.IPv4Network("127.64.0.0/10")


def is_closed(variables):
    """As ``EnvironmentVariables.is_closed``."""
    return variables["type"] != "production" and variables.get("egress") != "open"


def own_address(uid):
    """The loopback address of a user's own: no two users have the same."""
    if uid >= LOOPBACK.num_addresses:
        raise Failure(f"User {uid} has no loopback address of its own: the number is too high.")
    return str(LOOPBACK[uid])


class Egress:
    """``texts``: by their name in the layout, those of the rules for the whole node."""

    def __init__(self, run, layout, variables, texts):
        self.run = run
        self.layout = layout
        self.is_closed = is_closed(variables)
        self.rules = texts[names.EGRESS]

    @property
    def files(self):
        return [self.layout.egress] if self.is_closed else []

    def own_address(self, user):
        """Where a closed user finds its site on the node; None where it is open, or not there yet."""
        return own_address(user.pw_uid) if self.is_closed and user else None

    def ensure(self, user):
        """Close the user, or open it, before any code of the site's runs.

        One who was closed already may ask its own site, as before; one who was not, after ``admit``.
        """
        if user:
            former, whole = read(self.layout.egress), _elements(user.pw_uid, itself=True)
            self._ensure(user, whole if former == whole.encode() else _elements(user.pw_uid))

    def admit(self, user):
        """Let a closed user ask its own site, now that nginx has nobody else's at that address."""
        if self.is_closed:
            self._ensure(user, _elements(user.pw_uid, itself=True))

    def _ensure(self, user, text):
        with _alone(self.run):
            for path in _files_of(user.pw_uid):
                # The number was another user's before, whose environment is gone.
                if path != self.layout.egress:
                    place.absent(self.run, path)
            if self.is_closed:
                place.directory(self.run, FILES, 0o755)
                changed = place.file(self.run, self.layout.egress, text)
                self._close(user, text, changed)
            else:
                place.absent(self.run, self.layout.egress)
                _open(self.run, user)

    def _close(self, user, text, changed):
        rules = Rules.found()
        if rules.closes(user) and not changed:
            return
        if not rules.closes(user) and not self.run.change(f"egress of {user.pw_name}", "open", "closed"):
            return
        if self.run.check_mode:
            return
        _say(self.run, text if rules.is_whole else self.rules)
        if not Rules.found().closes(user):
            raise Failure(
                f"The firewall does not close what {user.pw_name} sends. Look at `nft list table {' '.join(TABLE)}`, "
                "and provision the node: playbooks/node.yml."
            )


def fetching_group(run, variables):
    """The group in which what root starts in a closed environment's sandbox reaches others; None where it does anyhow.

    No process of the site's comes to be in it: without privileges none changes its group.
    """
    if not is_closed(variables) or not Rules.found().is_whole:
        return None
    try:
        group = grp.getgrnam(FETCHING)
    except KeyError:
        run.command(["groupadd", "--system", FETCHING], hint=f"Group {FETCHING} was not made")
        group = grp.getgrnam(FETCHING)
    _say(run, f"add element {' '.join(TABLE)} fetching {{ {group.gr_gid} }}\n")
    return FETCHING


def forget(run, layout, user):
    """Nothing runs as this user any more, and its number may become another one's."""
    with _alone(run):
        place.absent(run, layout.egress)
        _open(run, user)


def _open(run, user):
    elements = Rules.found().elements_of(user)
    if elements and run.change(f"egress of {user.pw_name}", "closed", "open"):
        _say(run, "".join(f"delete element {' '.join(TABLE)} {one}\n" for one in elements))


class Rules:
    """The table as it is in force. ``listing``: what ``nft --json`` says of it."""

    def __init__(self, listing):
        found = [one for one in listing.get("nftables", ()) if isinstance(one, dict)]
        sets = {one["set"]["name"]: one["set"].get("elem", ()) for one in found if "set" in one}
        self.closed = [_value(one) for one in sets.get("closed", ())]
        self.own = [tuple(_value(one).get("concat", ())) for one in sets.get("own", ())]
        hooks = {one["chain"]["name"]: one["chain"].get("hook") for one in found if "chain" in one}
        rules = [(one["rule"]["chain"], one["rule"]["expr"]) for one in found if "rule" in one]
        refusing = [expr for chain, expr in rules if chain == "shut" and "reject" in expr[-1]]
        shuts = hooks.get("output") == "output" and ("output", _SHUT_OUT) in rules
        self.is_whole = shuts and len(refusing) == _REFUSING
        """As the probe looks at it: whoever is in the set is refused."""

    @classmethod
    def found(cls):
        """Those of this node; none where it has no such table."""
        argv = ["nft", "--json", "list", "table", *TABLE]
        try:
            said = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False).stdout
            listing = json.loads(said)
            return cls(listing if isinstance(listing, dict) else {})
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return cls({})

    def closes(self, user):
        return self.is_whole and self._is_in(user, self.closed)

    def elements_of(self, user):
        """What names the user, as nft is told of it."""
        own = [address for who, address in self.own if self._is_in(user, [who])]
        return [
            *([f"closed {{ {user.pw_uid} }}"] if self._is_in(user, self.closed) else []),
            *(f"own {{ {user.pw_uid} . {address} }}" for address in own),
        ]

    @staticmethod
    def _is_in(user, found):
        # It tells a number, or the name that the number has.
        return user.pw_uid in found or user.pw_name in found


_SHUT_OUT = [
    {"match": {"op": "==", "left": {"meta": {"key": "skuid"}}, "right": "@closed"}},
    {"jump": {"target": "shut"}},
]
_REFUSING = 2


def _value(element):
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def _say(run, text):
    run.command(["nft", "--file", "-"], text=text, hint="The firewall did not take the rules for what goes out")


@contextlib.contextmanager
def _alone(run):
    """Of runs at the same time one reads the files and loads what they say."""
    if run.check_mode:
        yield
        return
    os.makedirs(os.path.dirname(LOCK), mode=0o700, exist_ok=True)
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _elements(uid, *, itself=False):
    """What a file in ``FILES`` says."""
    lines = [f"add element {' '.join(TABLE)} closed {{ {uid} }}\n"]
    lines += [f"add element {' '.join(TABLE)} own {{ {uid} . {own_address(uid)} }}\n"] if itself else []
    return "".join(lines)


def _files_of(uid):
    """The files that close a user, whoever wrote them."""
    said = re.compile(rb" closed { %d }$" % uid, re.MULTILINE)
    return [path for path in sorted(glob.glob(f"{FILES}/*.nft")) if said.search(read(path) or b"")]
