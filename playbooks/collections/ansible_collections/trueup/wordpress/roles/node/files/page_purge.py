#!/usr/bin/python3
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Removes the pages that nginx keeps of a site as soon as the site says that they changed.

One process for the whole node, started by systemd with the first connection to its socket; it ends when nobody has
said anything for a while. Who asks is told by the kernel (SO_PEERCRED) and by nothing that is said: a site's user
reaches the pages of its own environment alone. A message is lines of ASCII, ended by the end of the connection:

``all``
    every page
``page PATH``
    the page at this path, with all that is below it: its further pages, its feed
``list PATH``
    the page at this path, its further pages and feeds, and of ``/`` also the sitemaps

A page whose making began before the event and which nginx kept after it would be the old one: PHP says in a header,
which no visitor sees, when it began, and what began too early is looked for again three times. What says that it
began in the future was made before the clock was set back.

Whoever says too much, too often or too slowly loses its own pages, or is not listened to, and delays nobody else: no
connection is waited for, and the work on files is done in slices, one site after the other.
"""

from __future__ import annotations

import collections
import contextlib
import glob
import os
import pwd
import re
import selectors
import socket
import struct
import sys
import time
import urllib.parse

CACHES = "/var/cache/nginx"
INHERITED = 3
"""The descriptor at which systemd hands over the socket."""
IDLE_S = 60
DEADLINE_S = 2
"""The longest that a connection may take to say all that it has to say."""
MOST_BYTES = 64 << 10
MOST_CONNECTIONS = 8
"""Of one user, at once."""
RATE, BURST = 50, 100
"""Messages of one user: a second, and at once. Beyond it nothing is read: all its pages go."""
AT_ONCE = 1024
"""Connections that are taken before anything else is done: as many as the kernel keeps (the socket's unit)."""
MOST_PATHS = 500
MOST_SIZE = 64 << 10
"""Characters of all paths of one look."""
MOST_LATER = 4 * MOST_SIZE
"""Of all that waits for later looks at one site: all sites together have as much memory as the service's unit says."""
EACH = 200
"""What a path counts there besides its characters: short ones take memory, too."""
PAUSE_S = 0.5
"""Between two looks through one site's pages; what is said meanwhile waits for the next."""
AGAIN_S = (2, 30, 120)
"""After so many seconds: PHP may work long on a page."""
SLICE_S = 0.02
HEAD = 8192
"""Bytes of a kept page that are read: nginx's own header, the key, and the first of PHP's headers."""

USER = re.compile(r"wp-[0-9a-f]{12}")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PAGE = re.compile(r"[0-9a-f]{32}")
KEY = re.compile(rb"\nKEY: https?[A-Z]+[^/\n]*(/[^ \n]*)")
BEGAN = re.compile(rb"\bX-Trueup-Began: ([0-9]{1,12}\.[0-9]{1,6})\r\n")
FURTHER = ("page/", "feed", "comments/", "rdf", "rss", "atom")


def directory_of(uid):
    """Where nginx keeps the pages of this user's environment; None for whoever is no environment's user."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
    if not USER.fullmatch(name):
        return None
    found = [path for path in glob.glob(f"{CACHES}/{name[3:11]}-*") if _is_of(os.path.basename(path), name)]
    return found[0] if len(found) == 1 else None


def _is_of(identity, name):
    return bool(UUID.fullmatch(identity)) and identity.replace("-", "")[:12] == name[3:]


def place(uri):
    """What WordPress takes for one path: ``/a/b`` for ``/A//b/?x=1`` and ``/index.php/a/b/``; of ``/``, nothing."""
    path = urllib.parse.unquote_to_bytes(uri.partition(b"?")[0]).decode("utf-8", "replace").casefold()
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["index.php"]:
        parts = parts[1:]
    return "".join(f"/{part}" for part in parts)


class Targets:
    """What is to go, each with the moment of its event in seconds since 1970."""

    def __init__(self):
        self.all = None
        self.pages = {}
        self.lists = {}

    def __bool__(self):
        return self.all is not None or bool(self.pages or self.lists)

    @property
    def size(self):
        """Characters of what it names."""
        return sum(map(len, self.pages)) + sum(map(len, self.lists))

    @property
    def weight(self):
        return self.size + EACH * (len(self.pages) + len(self.lists))

    def add_all(self, moment):
        self.all = max(self.all or 0.0, moment)
        self.pages.clear()
        self.lists.clear()

    def shorten(self):
        """Name nothing any more: all that began before the last of the events is meant."""
        self.add_all(max((*self.pages.values(), *self.lists.values(), self.all or 0.0)))

    def _is_too_much(self):
        return len(self.pages) + len(self.lists) > MOST_PATHS or self.size > MOST_SIZE

    def add(self, other):
        if other.all is not None:
            self.add_all(other.all)
        elif self.all is None:
            self.pages.update(other.pages)
            self.lists.update(other.lists)
        if self.all is not None or self._is_too_much():
            moments = (other.all, *other.pages.values(), *other.lists.values())
            self.add_all(max(moment for moment in moments if moment is not None))

    def read(self, message, moment):
        """Take what a message says; what it cannot mean is left out."""
        for line in message.split(b"\n"):
            word, _, path = line.strip().partition(b" ")
            if word == b"all":
                self.add_all(moment)
            if self.all is not None or not path.startswith(b"/"):
                continue
            found = place(path)
            # Everything is below the first page, which is therefore never meant.
            if word == b"page" and found:
                self.pages[found] = moment
            elif word in (b"list", b"page"):
                self.lists[found] = moment
            if len(self.pages) + len(self.lists) > MOST_PATHS:
                self.add_all(moment)
        if self.size > MOST_SIZE:
            self.add_all(moment)

    def moment(self, path):
        """When the last event was that this place is part of; None where there was none."""
        if self.all is not None:
            return self.all
        found = [self.lists.get(path)]
        if self.lists:
            found += [self._list(path)]
        while path and self.pages:
            found.append(self.pages.get(path))
            path = path.rpartition("/")[0]
        return max((one for one in found if one is not None), default=None)

    def _list(self, path):
        above, last = path, ""
        while above:
            above, _, part = above.rpartition("/")
            last = f"{part}/{last}"
            if above in self.lists and last.startswith(FURTHER):
                return self.lists[above]
        if "" in self.lists and "sitemap" in path:
            return self.lists[""]
        return None


def sweep(directory, targets, *, again):
    """Remove what is meant, a file at each step; ``again``: only what is known to have begun before its event."""
    for parent, _, names in os.walk(directory):
        for name in names:
            if PAGE.fullmatch(name):
                path = os.path.join(parent, name)
                with contextlib.suppress(FileNotFoundError):
                    if (targets.all is not None and not again) or _is_meant(path, targets, again):
                        os.unlink(path)
            yield


def _is_meant(path, targets, again):
    with open(path, "rb") as file:
        head = file.read(HEAD)
    key = KEY.search(head)
    moment = targets.moment(place(key.group(1))) if key else targets.all
    if moment is None:
        return False
    began = BEGAN.search(head)
    return not moment < float(began.group(1)) <= time.time() if began else not again


class Site:
    """What one user said, and what is done about it."""

    def __init__(self):
        self.wanted = Targets()
        self.again = {}
        self.sweep = None
        self.free_at = 0.0
        self.connections = 0
        self.tokens = float(BURST)
        self.refilled_at = time.monotonic()

    def may_speak(self, now):
        self.tokens = min(BURST, self.tokens + (now - self.refilled_at) * RATE)
        self.refilled_at = now
        if self.tokens < 1 or self.connections >= MOST_CONNECTIONS:
            return False
        self.tokens -= 1
        return True

    def due(self):
        """The moment of the next look through its pages; None where there is none to come."""
        if self.wanted:
            return self.free_at
        return max(self.free_at, min(self.again)) if self.again else None

    def begin(self, directory, now):
        """Begin the look that is due."""
        if self.wanted:
            targets, self.wanted = self.wanted, Targets()
            for seconds in AGAIN_S:
                # In whole seconds, so that there are never more of them than seconds.
                self.again.setdefault(int(now) + 1 + seconds, Targets()).add(targets)
            if sum(later.weight for later in self.again.values()) > MOST_LATER:
                for later in self.again.values():
                    later.shorten()
            self.sweep = sweep(directory, targets, again=False)
        else:
            targets = Targets()
            for moment in [moment for moment in self.again if moment <= now]:
                targets.add(self.again.pop(moment))
            self.sweep = sweep(directory, targets, again=True)

    def advance(self, until):
        """Work for a slice; whether there is more to do."""
        try:
            for _ in self.sweep:
                if time.monotonic() > until:
                    return True
        except OSError as error:
            sys.stderr.write(f"Pages were not removed: {error}\n")
        self.sweep = None
        self.free_at = time.monotonic() + PAUSE_S
        return False

    def is_idle(self, now):
        rested = self.tokens + (now - self.refilled_at) * RATE >= BURST
        return rested and not (self.wanted or self.again or self.sweep or self.connections)


class Connection:
    def __init__(self, stream, uid, deadline):
        self.stream = stream
        self.uid = uid
        self.deadline = deadline
        self.text = b""

    def is_open(self, site):
        """Take what it says now; whether there may be more. At its end the site wants what it said."""
        try:
            while True:
                data = self.stream.recv(16384)
                self.text += data
                if len(self.text) > MOST_BYTES:
                    site.wanted.add_all(time.time())
                    break
                if not data:
                    said = Targets()
                    said.read(self.text, time.time())
                    site.wanted.add(said)
                    break
        except BlockingIOError:
            return True
        except OSError:
            pass  # it broke off, and said nothing
        return False


class Service:
    """``listener``: a socket that listens and does not block."""

    def __init__(self, listener):
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.sites = {}
        self.connections = collections.OrderedDict()
        self.working = collections.deque()
        self.heard_at = time.monotonic()

    def serve(self):
        """Until nobody has said anything for a while."""
        while self.sites or time.monotonic() < self.heard_at + IDLE_S:
            for key, _ in self.selector.select(self._patience()):
                if key.fileobj is self.listener:
                    self._accept()
                elif not key.data.is_open(self.sites[key.data.uid]):
                    self._close(key.data)
            now = time.monotonic()
            self._hang_up(now)
            self._begin(now)
            self._advance()

    def _patience(self):
        """How long there is nothing to do but to listen."""
        if self.working:
            return 0
        now = time.monotonic()
        moments = [now + 1 if self.sites else self.heard_at + IDLE_S]
        moments += [due for due in (site.due() for site in self.sites.values()) if due is not None]
        moments += [connection.deadline for connection in list(self.connections.values())[:1]]
        return max(0.0, min(moments) - now)

    def _accept(self):
        # Who floods fills the queue, in which others want a place.
        for _ in range(AT_ONCE):
            try:
                stream, _address = self.listener.accept()
            except OSError:
                return
            uid = _peer(stream)
            if uid not in self.sites and directory_of(uid) is None:
                stream.close()
                continue
            now = self.heard_at = time.monotonic()
            site = self.sites.setdefault(uid, Site())
            if not site.may_speak(now):
                site.wanted.add_all(time.time())
                stream.close()
                continue
            stream.setblocking(False)
            connection = Connection(stream, uid, now + DEADLINE_S)
            # Most have said all they had to say, and have left.
            if not connection.is_open(site):
                stream.close()
                continue
            site.connections += 1
            self.connections[id(connection)] = connection
            self.selector.register(stream, selectors.EVENT_READ, connection)

    def _close(self, connection):
        del self.connections[id(connection)]
        self.selector.unregister(connection.stream)
        connection.stream.close()
        self.sites[connection.uid].connections -= 1

    def _hang_up(self, now):
        """End the connections that take too long; they are in the order in which they came."""
        for connection in list(self.connections.values()):
            if connection.deadline > now:
                return
            self._close(connection)

    def _begin(self, now):
        for uid, site in list(self.sites.items()):
            if site.sweep:
                continue
            due = site.due()
            if due is not None and due <= now:
                # Asked anew each time: a user may be gone, and its number given to another site's.
                directory = directory_of(uid)
                if directory is None:
                    site.wanted, site.again = Targets(), {}
                    continue
                site.begin(directory, now)
                self.working.append(site)
            elif site.is_idle(now):
                del self.sites[uid]

    def _advance(self):
        if self.working:
            site = self.working.popleft()
            if site.advance(time.monotonic() + SLICE_S):
                self.working.append(site)


def _peer(stream):
    """The user at the other end when it connected, as the kernel knows it."""
    data = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", data)[1]


def main():
    listener = socket.socket(fileno=INHERITED)
    listener.setblocking(False)
    Service(listener).serve()


if __name__ == "__main__":
    main()
