# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the environment's code reaches other hosts: a copy's does not, by the node's firewall, whatever it does.

Its user is in sets of nftables', and in a file by which they are filled whenever the rules are loaded anew. A closed
user's processes reach Unix sockets, their own site at an address of the loopback that nginx has for no other site, and
the hosts that the copy's document lists (module ``listed_hosts``), or WordPress's own API where it says nothing. Those
of a copy that was opened reach everybody, but at no port of mail.
"""

from __future__ import annotations

import contextlib
import glob
import grp
import ipaddress
import json
import os
import re
import subprocess

from ansible_collections.trueup.wordpress.plugins.module_utils import listed_hosts
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import layout as names
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import place
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read

TABLE = ("inet", "trueup_egress")
FILES = "/etc/trueup/egress.d"
FETCHING = "trueup-fetch"
LOOKED_UP = "/etc/systemd/system/trueup-egress@.service"
"""What looks up names for the copies of a node; one that was provisioned by an earlier version has none."""
OF_WORDPRESS = ("api.wordpress.org",)
"""What a copy reaches whose document says nothing: it learns of versions there, and acts on nobody."""
CLOSED, NO_MAIL, OPEN = "closed", "open but for mail", "open"
LOOPBACK = ipaddress.IPv4Network("127.64.0.0/10")


def is_closed(variables):
    """As ``EnvironmentVariables.is_closed``."""
    return variables["type"] != "production" and variables.get("egress") != "open"


def listed(variables):
    """The names of the hosts that a closed environment reaches all the same."""
    said = variables.get("egress")
    if said is None:
        return list(OF_WORDPRESS)
    return [] if isinstance(said, str) else list(said)


def own_address(uid):
    """The loopback address of a user's own: no two users have the same."""
    if uid >= LOOPBACK.num_addresses:
        raise Failure(f"User {uid} has no loopback address of its own: the number is too high.")
    return str(LOOPBACK[uid])


def reach(variables):
    """As ``EnvironmentVariables.reach``."""
    if is_closed(variables):
        return CLOSED
    return OPEN if variables["type"] == "production" else NO_MAIL


class Egress:
    """``texts``: by their name in the layout, those of the rules for the whole node."""

    def __init__(self, run, layout, variables, texts):
        self.run = run
        self.layout = layout
        self.is_closed = is_closed(variables)
        self.reach = reach(variables)
        self.rules = texts[names.EGRESS]
        self.listed = listed_hosts.Listed(layout.id)
        self.names = listed(variables) if self.is_closed else []
        self.internal = list(variables.get("internal_hosts") or ()) if self.is_closed else []

    @property
    def files(self):
        return [
            *([] if self.reach == OPEN else [self.layout.egress]),
            *([self.layout.listed] if self.is_closed else []),
        ]

    def own_address(self, user):
        """Where a closed user finds its site on the node; None where it is open, or not there yet."""
        return own_address(user.pw_uid) if self.is_closed and user else None

    def ensure(self, user):
        """Close the user, or open it, before any code of the site's runs.

        One who was closed already may ask its own site, as before; one who was not, after ``admit``.
        """
        if user:
            admitted = _own(user.pw_uid)
            itself = self.is_closed and admitted.encode() in (read(self.layout.egress) or b"")
            self._ensure(user, self._elements(user) + (admitted if itself else ""))

    def admit(self, user):
        """Let a closed user ask its own site, now that nginx has nobody else's at that address."""
        if self.is_closed:
            self._ensure(user, self._elements(user) + _own(user.pw_uid))

    def settle(self):
        """Have the closed environment's own hosts file say what the node's says now."""
        if self.is_closed and not self.run.check_mode:
            with _alone(self.run):
                self._settle()

    def _elements(self, user):
        """What the file says that puts the user into sets."""
        sets = ["copies", *(["closed"] if self.is_closed else [])]
        return "".join(f"add element {' '.join(TABLE)} {one} {{ {user.pw_uid} }}\n" for one in sets)

    def _ensure(self, user, text):
        with _alone(self.run):
            for path in _files_of(user.pw_uid):
                # The number was another user's before, whose environment is gone.
                if path not in (self.layout.egress, self.listed.rules):
                    place.absent(self.run, path)
            if self.reach == OPEN:
                place.absent(self.run, self.layout.egress)
                self._forget_listed()
                _open(self.run, user)
            else:
                place.directory(self.run, FILES, 0o755)
                changed = place.file(self.run, self.layout.egress, text)
                moved = self._list() if self.is_closed else self._forget_listed()
                self._close(user, text, changed)
                if self.is_closed and not self.run.check_mode:
                    # Whoever is listed no longer is reached no longer, before anything else is done.
                    self._settle()
        if self.names and moved and not self.run.check_mode:
            self._look_up()

    def _list(self):
        """Write down what may be looked up; whether that moved."""
        place.directory(self.run, listed_hosts.STATE, 0o700)
        said = {"hosts": self.names, "internal": self.internal}
        return place.file(self.run, self.layout.listed, json.dumps(said, indent=1) + "\n")

    def _forget_listed(self):
        gone = [place.absent(self.run, path) for path in (self.layout.listed, *self.listed.files)]
        return any(gone)

    def _settle(self):
        try:
            self.listed.settle()
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or str(error)).strip()[-2000:]
            raise Failure(f"The firewall did not take where listed hosts lead: {said}") from error

    def _look_up(self):
        """Nobody waits for DNS: what it says is in force a moment later, and told by the next look at the node."""
        if os.path.exists(LOOKED_UP):
            unit = LOOKED_UP.rpartition("/")[2].replace("@", f"@{self.layout.id}")
            try:
                self.run.command(["systemctl", "start", "--no-block", unit], hint="Listed hosts are looked up later")
            except Failure as error:
                self.run.notes.append(str(error))
        else:
            self.run.notes.append(
                f"The node's baseline does not look up {', '.join(self.names)} yet: provision it, playbooks/node.yml."
            )

    def _close(self, user, text, changed):
        rules = Rules.found()
        there = rules.reach(user)
        is_right = there == self.reach and rules.is_whole
        if is_right and not changed:
            return
        before = there if rules.is_whole else f"{there}, by rules that are not whole"
        if not is_right and not self.run.change(f"egress of {user.pw_name}", before, self.reach):
            return
        if self.run.check_mode:
            return
        # First what is refused anyhow, so that a copy that is opened writes no mail in between.
        _say(self.run, text if rules.is_whole else self.rules)
        if not self.is_closed:
            _forget(self.run, Rules.found().elements_of(user, ("closed", "own", *listed_hosts.SETS.values())))
        if Rules.found().reach(user) != self.reach:
            raise Failure(
                f"The firewall does not close what {user.pw_name} sends. Look at `nft list table {' '.join(TABLE)}`, "
                "and provision the node: playbooks/node.yml."
            )


def close_early(run, layout, variables, user):
    """Close a user before code of its source's runs, though its environment may never have been applied.

    A node that has no rules yet closes nobody before an environment is applied on it.
    """
    if is_closed(variables) and Rules.found().is_whole:
        Egress(run, layout, variables, {names.EGRESS: ""}).ensure(user)


def fetching_group(run, variables):
    """The group in which what root starts in a closed environment's sandbox reaches others; None where it does anyhow.

    No process of the site's comes to be in it: without privileges none changes its group. Nothing of a site's own,
    or of a package's, is started with it.
    """
    if not is_closed(variables) or not Rules.found().shuts:
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
        listed_of = listed_hosts.Listed(layout.id)
        for path in (layout.egress, layout.listed, *listed_of.files):
            place.absent(run, path)
        _open(run, user)


def _open(run, user):
    rules = Rules.found()
    elements = rules.elements_of(user)
    if elements and run.change(f"egress of {user.pw_name}", rules.reach(user), OPEN):
        _forget(run, elements)


def _forget(run, elements):
    if elements:
        _say(run, "".join(f"delete element {' '.join(TABLE)} {one}\n" for one in elements))


class Rules:
    """The table as it is in force. ``listing``: what ``nft --json`` says of it."""

    def __init__(self, listing):
        found = [one for one in listing.get("nftables", ()) if isinstance(one, dict)]
        sets = {one["set"]["name"]: one["set"].get("elem", ()) for one in found if "set" in one}
        self.users = {name: [_value(one) for one in sets.get(name, ())] for name in ("closed", "copies")}
        self.pairs = {
            name: [tuple(_value(one).get("concat", ())) for one in sets.get(name, ())]
            for name in ("own", *listed_hosts.SETS.values())
        }
        hooks = {one["chain"]["name"]: one["chain"].get("hook") for one in found if "chain" in one}
        rules = [(one["rule"]["chain"], one["rule"]["expr"]) for one in found if "rule" in one]
        refusing = [expr for chain, expr in rules if chain == "shut" and "reject" in expr[-1]]
        refuses = hooks.get("output") == "output" and len(refusing) == _REFUSING
        self.shuts = refuses and ("output", _SHUT_OUT) in rules
        """As the probe looks at it: whoever is in the set is refused."""
        self.keeps_mail = refuses and ("output", _NO_MAIL) in rules
        accepted = {name for name in listed_hosts.SETS.values() for chain, expr in rules if _accepts(name, chain, expr)}
        lets_through = all(name in sets and name in accepted for name in listed_hosts.SETS.values())
        self.is_whole = self.shuts and self.keeps_mail and "copies" in sets and lets_through

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

    def reach(self, user):
        if self.shuts and self._is_in(user, self.users["closed"]):
            return CLOSED
        return NO_MAIL if self.keeps_mail and self._is_in(user, self.users["copies"]) else OPEN

    def elements_of(self, user, sets=None):
        """What names the user, as nft is told of it; ``sets``: in these alone."""
        named = [name for name, users in self.users.items() if self._is_in(user, users)]
        found = [(name, str(user.pw_uid)) for name in named]
        found += [
            (name, f"{user.pw_uid} . {address}")
            for name, pairs in self.pairs.items()
            for who, address in pairs
            if self._is_in(user, [who])
        ]
        return [f"{name} {{ {one} }}" for name, one in found if sets is None or name in sets]

    @staticmethod
    def _is_in(user, found):
        # It tells a number, or the name that the number has.
        return user.pw_uid in found or user.pw_name in found


_SHUT_OUT = [
    {"match": {"op": "==", "left": {"meta": {"key": "skuid"}}, "right": "@closed"}},
    {"jump": {"target": "shut"}},
]
_NO_MAIL = [
    {
        "match": {
            "op": "==",
            "left": {"payload": {"protocol": "tcp", "field": "dport"}},
            "right": {"set": [25, 465, 587, 2525]},
        }
    },
    {"match": {"op": "==", "left": {"meta": {"key": "skuid"}}, "right": "@copies"}},
    {"jump": {"target": "shut"}},
]
_REFUSING = 2


def _accepts(name, chain, expr):
    """Whether a rule lets through whom a set of pairs names."""
    return chain == "output" and f'"@{name}"' in json.dumps(expr[:-1]) and "accept" in expr[-1]


def _value(element):
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def _say(run, text):
    run.command(["nft", "--file", "-"], text=text, hint="The firewall did not take the rules for what goes out")


def _alone(run):
    """Of runs at the same time one reads the files and loads what they say."""
    return contextlib.nullcontext() if run.check_mode else listed_hosts.alone()


def _own(uid):
    """What a file in ``FILES`` says of a user who may ask its own site."""
    return f"add element {' '.join(TABLE)} own {{ {uid} . {own_address(uid)} }}\n"


def _files_of(uid):
    """The files that name a user, whoever wrote them."""
    said = re.compile(rb" (?:closed|copies|listed6?) { %d (?:\. \S+ )?}$" % uid, re.MULTILINE)
    found = sorted(path for place_ in (FILES, listed_hosts.STATE) for path in glob.glob(f"{place_}/*.nft"))
    return [path for path in found if said.search(read(path) or b"")]
