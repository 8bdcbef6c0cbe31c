# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Which hosts a closed copy reaches all the same: those that its document lists, at the addresses that were checked.

A closed copy has nobody look up names, and the firewall refuses what it sends. Root looks up the names of its list, and
the addresses that are fit go into a set of the firewall's and into a file that is the copy's ``/etc/hosts``, both at
once: what was checked is what is connected to, whatever the name says a moment later. What is looked up comes from
``/etc/trueup/egress.d/<id>.json``, root's, and never from a site.

The module that applies an environment imports this; systemd runs this very file on a node: every two minutes, after
each change of the node's ``/etc/hosts``, and for one environment whose list changed. Stdlib only.

    listed_hosts.py all | ID
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import ipaddress
import json
import os
import pwd
import queue
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time

LISTS = "/etc/trueup/egress.d"
STATE = "/var/lib/trueup/egress"
LOCK = "/run/trueup/locks/egress"
NODE = "/etc/trueup/node.json"
HOSTS = "/etc/hosts"
TABLE = ("inet", "trueup_egress")
SETS = {4: "listed", 6: "listed6"}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NAME = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])")

MOST_NAMES = 32
MOST_ADDRESSES = 8
"""Of one name, so many are in the copy's hosts file: a name may have hundreds."""
MOST_LET_THROUGH = 24
"""Of one name, so many may be reached: also those that it had a moment ago."""
LEAVING_S = 15 * 60
"""So long an address is let through that DNS does not give any longer: who is connected to it can end."""
SEEN_ANEW_S = 5 * 60
KEPT_S = 6 * 3600
"""So long the last known addresses are kept of a name that does not resolve."""
ASK_S = 20.0
"""For all names together; what is slow has no answer, and delays nobody else."""
AT_ONCE = 16
LONGEST_ANSWER = 64
MOST_SAID = 8 << 20
NOBODY = 65534

_CLOUD = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192")))
"""Where clouds answer questions about the machine itself, at addresses that look like anybody's."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL6 = ipaddress.ip_network("2000::/3")
OWN = ("loopback", "link-local", "multicast", "unspecified", "cloud metadata")
"""Kinds of addresses that no name leads to, unless somebody allowed the address itself."""


# Addresses


def kind_of(address):
    """Why an address is not a public one; None: it is."""
    if address.version == 6:
        if getattr(address, "scope_id", None):
            return "link-local"
        inner = _inner(address)
        if inner is not None:
            return kind_of(inner)
    for kind, holds in (
        ("cloud metadata", address in _CLOUD),
        ("loopback", address.is_loopback),
        ("link-local", address.is_link_local),
        ("multicast", address.is_multicast),
        ("unspecified", address.is_unspecified or (address.version == 4 and address.packed[0] == 0)),
        ("private", address.is_private),
        ("reserved", not address.is_global or (address.version == 6 and address not in _GLOBAL6)),
    ):
        if holds:
            return kind
    return None


def _inner(address):
    """The IPv4 address that an IPv6 address only wraps."""
    if address.ipv4_mapped is not None or address.sixtofour is not None:
        return address.ipv4_mapped or address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    old = int(address) >> 32 == 0 and int(address) > 1
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if old or address in _NAT64 else None


def refusal(name, text, internal):
    """Why nobody is let through to this address of the name, as a kind of address; None: it is fit.

    ``internal``: names and addresses that the operator allowed to be internal.
    """
    kind = kind_of(ipaddress.ip_address(text))
    if kind and text not in internal and (name not in internal or kind in OWN):
        return kind
    return "the node's own" if is_own_address(text) else None


def is_own_address(text):
    """Whether an address is this node's: one that it has, or the one by which it is known."""
    return text == _known_address() or _is_bound_here(text)


def _known_address():
    try:
        with open(NODE, encoding="utf-8") as file:
            return str(json.load(file)["variables"]["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_bound_here(text):
    try:
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((text, 0))
        return True
    except OSError:
        return False


_REFUSED = (
    "It leads to {} ({}), where nobody is let through. Correct DNS or the list; an operator can allow internal hosts "
    "in platform.yaml, spec.imports.allowed_hosts."
)

# What is known of a name: {"addresses": {text: last seen}, "current": [text], "error": text or None}


def sane(known):
    """The same, or None where it is nothing of the kind: what was written is read again after a crash."""
    try:
        addresses = {str(ipaddress.ip_address(text)): int(at) for text, at in known["addresses"].items()}
        return {
            "addresses": addresses,
            "current": [text for text in known["current"] if text in addresses],
            "error": known["error"],
        }
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def merged(known, answer, now):
    """What is known of a name after it was asked for.

    ``answer``: its addresses, and why nobody is let through to one of them, by address (None: it is fit); or a text
    that says why it has none.
    """
    # What was seen by a clock that was set back since was seen now.
    seen = {text: min(at, now) for text, at in (known.get("addresses") or {}).items()}
    former = list(known.get("current") or ())
    if isinstance(answer, str):
        current, error = [text for text in former if now - seen.get(text, 0) < KEPT_S], answer
    else:
        fit = [text for text, why in answer.items() if why is None]
        current = [*(text for text in former if text in fit), *(text for text in fit if text not in former)]
        current = current[:MOST_ADDRESSES]
        # Not each time: what did not change is not written anew.
        seen.update({text: now for text in current if now - seen.get(text, 0) > SEEN_ANEW_S})
        refused = next(((text, why) for text, why in answer.items() if why), None)
        error = refused and _REFUSED.format(*refused)
    kept = {text: at for text, at in seen.items() if text in current or now - at < LEAVING_S}
    newest = sorted(kept, key=lambda text: (text not in current, -kept[text]))[:MOST_LET_THROUGH]
    return {"addresses": {text: kept[text] for text in newest}, "current": current, "error": error}


def without(known, unfit):
    """The same without the addresses of which ``unfit`` says so."""
    addresses = {text: at for text, at in (known.get("addresses") or {}).items() if not unfit(text)}
    current = [text for text in known.get("current") or () if text in addresses]
    return {"addresses": addresses, "current": current, "error": known.get("error")}


def hosts_text(node_hosts, identity, listed):
    """The copy's ``/etc/hosts``: the node's without what it says of other sites, and ``listed``, addresses by name."""
    foreign = re.compile(rf"# trueup (?!{identity}$)\S+$")
    lines = [f"# Managed by Trueup: what {identity} looks up by name."]
    for line in node_hosts.splitlines():
        names = line.partition("#")[0].split()[1:]
        if not foreign.search(line.rstrip()) and not set(map(str.lower, names)) & listed.keys():
            lines.append(line)
    lines += [f"{address} {name}" for name, addresses in sorted(listed.items()) for address in addresses]
    return "\n".join(lines) + "\n"


class Listed:
    """One closed environment's list, and what is known of it on this node. The lock is the caller's."""

    def __init__(self, identity, *, lists=LISTS, state=STATE):
        if not UUID.fullmatch(identity):
            raise ValueError(f"{identity!r} is no environment's id.")
        self.id = identity
        self.user_name = f"wp-{identity.replace('-', '')[:12]}"
        self.list = f"{lists}/{identity}.json"
        self.state = f"{state}/{identity}.json"
        self.rules = f"{state}/{identity}.nft"
        self.hosts = f"{state}/{identity}.hosts"

    def said(self):
        """``(names, internal)``: what the document lists, and what of that the operator allowed to be internal."""
        found = _json(self.list)
        hosts, internal = (one if isinstance(one, list) else [] for one in map(found.get, ("hosts", "internal")))
        names = [one for one in hosts if isinstance(one, str) and NAME.fullmatch(one)]
        return names[:MOST_NAMES], frozenset(map(str, internal))

    def settle(self, answers=None, *, now=None):
        """Have firewall and hosts file say what is known of the names that are listed now, and of no others.

        ``answers``: what names were found to lead to just now, by name.
        """
        now = int(time.time()) if now is None else now
        names, internal = self.said()
        kept, known = _json(self.state), {}
        for name in names:
            former, answer = sane(kept.get(name)), (answers or {}).get(name)
            if former is None and answer is None:
                continue  # it was not looked up yet

            def unfit(text, name=name):
                return refusal(name, text, internal)

            one = without(former or {}, unfit)  # what was fit once may be so no longer
            if answer is not None:
                judged = answer if isinstance(answer, str) else {text: unfit(text) for text in answer}
                one = merged(one, judged, now)
            known[name] = one
        self._let_through(sorted({text for one in known.values() for text in one["addresses"]}))
        with open(HOSTS, encoding="utf-8", errors="surrogateescape") as file:
            listed = {name: known[name]["current"] if name in known else [] for name in names}
            text = hosts_text(file.read(1 << 20), self.id, listed)
        _overwrite(self.hosts, text)
        # At the end: what is told of it is in force.
        if known != kept:
            _replace(self.state, json.dumps(known, sort_keys=True), 0o600)

    @property
    def files(self):
        """All that is kept of it but the list."""
        return [self.state, self.rules, self.hosts]

    def shut(self):
        """Nobody is let through any more, and nothing is kept."""
        self._let_through([])
        for path in self.files:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _let_through(self, addresses):
        """Have the firewall accept what the user sends to these addresses, and to no others, in one step."""
        try:
            uid = pwd.getpwnam(self.user_name).pw_uid
        except KeyError:
            return
        wanted = {(SETS[ipaddress.ip_address(text).version], text) for text in addresses}
        text = "".join(f"add element {' '.join(TABLE)} {name} {{ {uid} . {one} }}\n" for name, one in sorted(wanted))
        if _read(self.rules) != text:
            _replace(self.rules, text, 0o600)
        there = elements_of(uid, self.user_name)
        if there is None:
            return  # rules of an earlier version, by which nobody is let through
        script = [f"delete element {' '.join(TABLE)} {name} {{ {uid} . {one} }}\n" for name, one in there - wanted]
        script += [f"add element {' '.join(TABLE)} {name} {{ {uid} . {one} }}\n" for name, one in wanted - there]
        if script:
            subprocess.run(
                ["nft", "--file", "-"], input="".join(script), text=True, capture_output=True, timeout=20, check=True
            )


def elements_of(uid, user_name):
    """``{(set, address)}`` of those that the firewall lets this user through to; None where it has no such sets."""
    argv = ["nft", "--json", "list", "table", *TABLE]
    said = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    if said.returncode != 0:
        return None
    found = [one["set"] for one in json.loads(said.stdout)["nftables"] if "set" in one]
    sets = {one["name"]: one.get("elem", ()) for one in found if one["name"] in SETS.values()}
    if len(sets) < len(SETS):
        return None
    pairs = [(name, element["concat"]) for name, elements in sets.items() for element in elements]
    # It tells a number, or the name that the number has.
    return {(name, str(address)) for name, (who, address) in pairs if who in (uid, user_name)}


# Looking up


def look_up(names, seconds=ASK_S, ask=None):
    """What the names lead to now: addresses by name, or a text where there are none. By nobody's hands, and in time."""
    names = sorted(set(names))
    if not names:
        return {}
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            _answer(names, writing, ask or _addresses)
        finally:
            os._exit(0)
    os.close(writing)
    try:
        said = _said_in_time(reading, seconds)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    found = dict.fromkeys(names, "DNS gave no answer in time.")
    for line in said.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            one = json.loads(line)
            answer = one["answer"]
            is_text = isinstance(answer, str)
            answer = answer[:200] if is_text else [str(ipaddress.ip_address(text)) for text in answer][:LONGEST_ANSWER]
            if one["name"] in found:
                found[one["name"]] = answer
    return found


def _said_in_time(handle, seconds):
    said, end = bytearray(), time.monotonic() + seconds
    while len(said) < MOST_SAID:
        ready, _, _ = select.select([handle], [], [], max(end - time.monotonic(), 0))
        block = os.read(handle, 1 << 16) if ready else b""
        if not block:
            break
        said += block
    return bytes(said)


def _answer(names, handle, ask):
    """In a process of its own, which has no rights: a line of JSON for each name, as it is answered."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    # No name is tried with the node's own domain behind it.
    os.environ.update(LOCALDOMAIN="", RES_OPTIONS="timeout:3 attempts:2")
    waiting, lock = queue.SimpleQueue(), threading.Lock()
    for name in names:
        waiting.put(name)

    def work():
        with contextlib.suppress(queue.Empty):
            while True:
                name = waiting.get_nowait()
                line = json.dumps({"name": name, "answer": ask(name)}) + "\n"
                with lock:
                    os.write(handle, line.encode())

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(AT_ONCE, len(names)))]
    for one in workers:
        one.start()
    for one in workers:
        one.join()


def _addresses(name):
    try:
        found = socket.getaddrinfo(name, None, 0, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    except (OSError, UnicodeError) as error:
        return f"It does not resolve ({getattr(error, 'strerror', None) or error})."
    return list(dict.fromkeys(entry[4][0] for entry in found))[:LONGEST_ANSWER]


# Mounts


def mend(listed):
    """Have each PHP see its own hosts file again: the kernel takes the mount away when the node's is replaced."""
    units = {f"trueup-php@{one.id}.service": one for one in listed}
    if not units:
        return
    argv = ["systemctl", "show", "--property=Id,MainPID", *units]
    said = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    for block in said.stdout.strip().split("\n\n"):
        told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        one, pid = units.get(told.get("Id")), told.get("MainPID", "0")
        wanted = one and _read(one.hosts)
        if wanted and pid != "0" and _read(f"/proc/{pid}/root{HOSTS}") not in (wanted, None):
            bind = ["systemctl", "bind", "--read-only", told["Id"], one.hosts, HOSTS]
            subprocess.run(bind, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)


# Files


def _json(path):
    try:
        found = json.loads(_read(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(path):
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(1 << 20).decode("utf-8", "surrogateescape")
    except OSError:
        return None


def _replace(path, text, mode):
    beside = f"{path}.new"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)


def _overwrite(path, text):
    """In its place, as what runs has the file itself mounted: a reader may see a part of it for a moment."""
    data = text.encode("utf-8", "surrogateescape")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        former = os.fstat(handle).st_size
        os.fchmod(handle, 0o644)
        if former != len(data) or os.pread(handle, len(data), 0) != data:
            os.pwrite(handle, data.ljust(former, b"\n"), 0)
            os.ftruncate(handle, len(data))
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone():
    """Of those who change the sets and the files for them, one at a time."""
    os.makedirs(os.path.dirname(LOCK), mode=0o700, exist_ok=True)
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# The program


def refresh(identities):
    """Look up what these environments list, and let them through; messages about those with which that failed."""
    found, failed = [Listed(one) for one in identities], []

    def settle(one, answers=None):
        try:
            with alone():
                if os.path.exists(one.list):  # else it was opened or removed meanwhile
                    one.settle(answers)
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
            detail = getattr(error, "stderr", None) or error
            failed.append(f"{one.id}: {detail}")

    for one in found:
        settle(one)
    try:
        mend(found)
    except (OSError, subprocess.SubprocessError) as error:
        failed.append(f"Hosts files were not mounted: {error}")
    asked = {}
    for _ in range(3):  # once more, where a list has changed meanwhile
        names = {name for one in found for name in one.said()[0]} - asked.keys()
        if not names:
            break
        asked.update(look_up(names))
        for one in found:
            settle(one, asked)
    return failed


def forget_strangers():
    """What is kept of environments that have no list any more."""
    for identity in {os.path.basename(path).partition(".")[0] for path in glob.glob(f"{STATE}/*")}:
        with alone():
            if UUID.fullmatch(identity) and not os.path.exists(f"{LISTS}/{identity}.json"):
                Listed(identity).shut()


def main(argument):
    os.makedirs(STATE, mode=0o700, exist_ok=True)
    known = sorted(os.path.basename(path)[: -len(".json")] for path in glob.glob(f"{LISTS}/*.json"))
    chosen = [one for one in known if UUID.fullmatch(one) and argument in ("all", one)]
    failed = refresh(chosen)
    if argument == "all":
        forget_strangers()
    for message in failed:
        sys.stderr.write(f"{message}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) == 2 else ""))
