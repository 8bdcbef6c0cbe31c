# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""A backup restored into a throwaway copy beside its environment, checked, and taken away again.

The copy is that of a rehearsal: a database and a user of its own, a directory and a PHP of its own, no network, no
mail, no cron, and no name by which anybody could ask for it. Of what is served only uploads can be read. All of it
works when nothing else wants to. A run that was killed leaves what the next one removes, or one that only clears.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from ansible_collections.trueup.wordpress.plugins.module_utils import dump, room, sql
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.domains import address_of
from ansible_collections.trueup.wordpress.plugins.module_utils.content import archived
from ansible_collections.trueup.wordpress.plugins.module_utils.content.row_counts import BLOCK, RowCounts
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import site_addresses
from ansible_collections.trueup.wordpress.plugins.module_utils.content.snapshot import DATABASES
from ansible_collections.trueup.wordpress.plugins.module_utils.content.transfer import download
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core, health, sandbox
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.release.rehearsal import Rehearsal
from ansible_collections.trueup.wordpress.plugins.module_utils.release.releases import FOREIGN_DROP_INS
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

FAILED, NO_ROOM, UNDECIDED = "DRILL_FAILED", "DRILL_NO_ROOM", "DRILL_UNDECIDED"
SPARE = 1 << 30
"""Bytes that a drill leaves free: whatever else is to be written comes first."""
PATIENCE_S = 120
"""How long a page may take that is made for the first time, by a PHP that waits for everybody else."""
LONGEST_S = 12 * 3600
NAMED = 5
CORE_TABLES = ("commentmeta", "comments", "options", "postmeta", "posts", "term_relationships", "term_taxonomy")
CORE_TABLES += ("termmeta", "terms", "usermeta", "users")
_IDLE = ("Nice=19", "IOSchedulingClass=idle", "CPUWeight=1", "IOWeight=1")
_SAME = re.compile(rb": (?:Mode|Uid|Gid|Mod time) differs$")
NO_DATABASE = "Error establishing a database connection"
_NUMBERED = r"(?:ERROR |\(error |\([0-9A-Z]{5}/)"
_FULL = re.compile(rf"No space left on device|Disk quota exceeded|Errcode: (?:28|122)\b|{_NUMBERED}(?:1021|1114)\b")
_AWAY = re.compile(
    rf"{_NUMBERED}(?:1030|1040|1053|1203|1226|1927|2002|2006|2013)\b|{NO_DATABASE}|MySQL server has gone away"
    r"|Too many connections|Cannot allocate memory|Input/output error|Failed to (?:start transient|connect to bus)"
    r"|result: (?:oom-kill|signal|timeout)"
)
"""The node's disk; its server of databases, memory or systemd: not what they were given."""
WORST = 2
"""The exit status of a tar that could not do it. Above that it was ended, or never began."""
_ADDRESS = re.compile(r"https?://[a-z0-9.-]{1,253}(?::[0-9]{1,5})?")


class Drill(Rehearsal):
    """One backup. ``manifest``: as it is kept; ``urls``: by object the address at which it is read."""

    kind = "drill"
    doing = "trying a backup"

    def __init__(self, run, layout, variables, manifest, urls):
        super().__init__(run, layout, variables, None)
        self.manifest = manifest
        self.urls = urls
        self.archives = f"{self.directory}/archives"
        self.uploads = f"{self.tree}/uploads"

    def carry_out(self, scope):
        """What was checked: ``tables rows files pages``. A Failure says what of the backup is not as it should be."""
        self.throw_away()
        self._begin()
        try:
            return self._carry_out(scope)
        finally:
            self.throw_away()

    def throw_away(self):
        # What a rehearsal has learned of an update is none of a drill's.
        self._throw_away()

    def _carry_out(self, scope):
        self._refuse_without_room({self.directory: self._compressed})
        self._download()
        sizes, counts = self._measured()
        self._refuse_without_room({self.directory: sizes[archived.FILES], DATABASES: 3 * sizes[archived.DATABASE]})
        told = {"tables": None, "rows": None, "files": None, "pages": 0}
        if archived.DATABASE in self.urls:
            told["tables"], told["rows"] = self._database(counts)
        if archived.FILES in self.urls:
            told["files"] = self._unpack()
        elif archived.DATABASE in self.urls:
            self._copy_files()
        if archived.DATABASE in self.urls:
            self._start(scope)
            told["pages"] = self._try()
        return told

    # Before anything is there

    def _begin(self):
        try:
            self.user = pwd.getpwnam(self.layout.user)
        except KeyError as error:
            raise Failure(f"Environment {self.layout.id} is not on this node. Apply it first.") from error
        os.nice(19)
        self.run.command(["ionice", "--class", "idle", "--pid", str(os.getpid())])
        paths.directory(self.directory, 0o711)
        paths.directory(self.archives, 0o700)

    @property
    def _compressed(self):
        return sum(self.manifest["objects"][name]["size_bytes"] for name in self.urls)

    def _refuse_without_room(self, wanted):
        if lack := room.lacking(wanted, SPARE):
            needed, free = lack
            raise Failure(
                f"To restore the backup beside what is served takes {needed >> 20} MiB of the node's disk, of "
                f"which {SPARE >> 20} stay free, and {free >> 20} MiB are free. So nothing is known of the backup. "
                "Free some.",
                trueup_code=NO_ROOM,
            )

    def _download(self):
        for name, url in self.urls.items():
            try:
                download(url, f"{self.archives}/{name}", self.manifest["objects"][name])
            except Failure as error:
                if error.facts.get("trueup_code"):
                    raise
                raise _undecided(str(error).rstrip("."), str(error)) from error

    # What the archives say

    def _measured(self):
        """How many bytes each object has unpacked, and the rows by table that the database's has."""
        sizes, counts = {archived.DATABASE: 0, archived.FILES: 0}, None
        for name in self.urls:
            found = RowCounts()
            process = self.run.start([*archived.UNPACK, f"{self.archives}/{name}"])
            process.stdin.close()
            with process.stdout as stream:
                while block := stream.read1(BLOCK):
                    if name == archived.DATABASE:
                        found.feed(block)
                    sizes[name] += len(block)
            said = dump.drained(process.stderr).decode("utf-8", "replace").strip()
            if process.wait():
                raise _ended(f"{name} cannot be unpacked: {said[-500:]}", said, [process.returncode])
            if name == archived.DATABASE:
                counts = found.tables
        return sizes, counts

    # The database

    def _database(self, counts):
        """How many tables and rows came back, all of them; else a Failure that names those that did not."""
        noted = self.manifest.get("tables")
        self._hold_against(noted, counts, "The database in the backup", "were there when it was taken")
        sql.make_anew(self.database)
        was = Layout(self.manifest["environment_id"]).database
        try:
            objects = archived.load(self.run, f"{self.archives}/{archived.DATABASE}", self.database, was)
        except Failure as error:
            if error.facts.get("trueup_code"):
                raise
            raise _ended(f"{archived.DATABASE} cannot be loaded. {str(error)[-1000:]}", str(error)) from error
        session = sql.within(self.database)
        found = {
            name: int(session.value(f"SELECT COUNT(*) FROM {sql.qualified(self.database, name)}"))
            for name in sql.tables(self.database)
        }
        self._hold_against(counts, found, "The database that came back", "are in the backup")
        if missing := [f"wp_{name}" for name in CORE_TABLES if f"wp_{name}" not in found]:
            raise _failed(f"The database in the backup has no {', '.join(missing)}, so it is no WordPress's")
        self._make_user(objects)
        return len(found), sum(found.values())

    def _hold_against(self, wanted, found, what, where):
        """A Failure that names the tables that ``found`` has not, or has with another number of rows."""
        if wanted is None or found is None:
            return
        if missing := sorted(wanted.keys() - found.keys()):
            raise _failed(f"{what} lacks {_named(missing)}, which {where}")
        told = [
            f"{name[:80]} ({found[name]} instead of {rows})"
            for name, rows in sorted(wanted.items())
            if None not in (rows, found[name]) and rows != found[name]
        ]
        if told:
            raise _failed(f"{what} has other numbers of rows than {where}: {_named(told)}")

    # The files

    def _unpack(self):
        """How many files came back, each with the content that the archive has; else a Failure that names some.

        It is the site's user that unpacks, in its sandbox: whatever the archive has in it, root follows none of it.
        """
        version = self.manifest["wordpress_version"] or self.variables["wordpress_version"]
        core.refuse_unless_whole(version)
        paths.directory(self.tree)
        core.lay_core(version, self.tree)
        for name in ("wp-content", "uploads"):
            paths.directory(f"{self.tree}/{name}", 0o755, self.user.pw_uid, self.user.pw_gid)
        lines, said, status = self._tar("--extract", "--verbose")
        if any(status):
            raise _ended(f"{archived.FILES} cannot be unpacked ({status}): {said}", said, status, tar=status[0])
        _, said, status = self._tar("--compare", found=(found := []))
        if found or any(one > 1 or one < 0 for one in status):
            what = f"Files that came back are not those in the backup: {_named(found) or said}"
            raise _ended(what, said, status, tar=status[0])
        self._furnish()
        return lines

    def _tar(self, *options, found=None):
        """Lines that name a file, what was said at last, and the exit statuses; differences go into ``found``."""
        argv = ["tar", *options, "--no-same-owner", "--warning=no-timestamp", "--directory", self.tree]
        ordered = sandbox.command(self.layout, argv, seconds=LONGEST_S, scope=self.run.scope)
        ordered[1:1] = [f"--property={one}" for one in _IDLE]
        first = self.run.start([*archived.UNPACK, f"{self.archives}/{archived.FILES}"])
        last = self.run.start(ordered, feed=first.stdout)
        first.stdin.close()
        first.stdout.close()
        with ThreadPoolExecutor(3) as pool:
            files = pool.submit(_listened, last.stdout, found)
            said = [pool.submit(dump.drained, one.stderr) for one in (last, first)]
            text = b" ".join(one.result() for one in said).decode("utf-8", "replace").strip()
        return files.result(), text[-500:], [last.wait(), first.wait()]

    def _furnish(self):
        """What a restore puts into a release: our own plugin, uploads in their place, no drop-in of a cache's."""
        content, served = f"{self.tree}/wp-content", f"{self.layout.current}/wp-content"
        for name in FOREIGN_DROP_INS:
            paths.remove(f"{content}/{name}")
        plugin = paths.read(f"{os.path.realpath(served)}/mu-plugins/trueup.php")
        if plugin is not None:
            paths.directory(f"{content}/mu-plugins", 0o755, self.user.pw_uid, self.user.pw_gid)
            paths.replace(f"{content}/mu-plugins/trueup.php", plugin, 0o644)
        paths.remove(f"{content}/uploads")
        paths.link(f"{content}/uploads", self.uploads)
        self._make_work_directories()
        self._configure()

    # Its PHP

    def _binds(self):
        # Not what lies beside them: the password with which the site's own tables are reached.
        shared = f"{self.layout.uploads} -{self.layout.copy_script}"
        idle = "\n".join(_IDLE)
        return f"BindPaths={self.directory}\nBindReadOnlyPaths={shared}\n{idle}"

    def _try(self):
        """How many pages WordPress made of it."""
        url, path = self._address()
        answer = asked(self.socket, self.layout.user, self.tree, url, path)
        if why := health.flaw(answer):
            self._refuse_without_database()
            raise judged_page(f"{path} on {url} {why}".replace(f"{self.tree}/", ""), answer)
        return 1

    def _refuse_without_database(self):
        """Whatever WordPress says without one, in whatever language, it says nothing of the backup."""
        try:
            sql.Session(self.database, self.password, self.database).close()
        except sql.SqlError as error:
            raise _undecided(f"MariaDB did not answer WordPress. {error}", str(error)) from error

    def _address(self):
        """Where the site in the backup says that it is: asked by another name, it would only lead there."""
        for said in site_addresses(self.database):
            if found := _ADDRESS.match(said):
                return found[0], urlsplit(said).path.rstrip("/") + "/"
        return address_of(self.variables), "/"


def leave_nothing(run, layout):
    """Remove what a killed drill left, if there is anything."""
    drill = Drill(run, layout, {}, {}, {})
    if not run.check_mode and drill.is_left():
        drill.throw_away()


def clear(run, layout):
    """The same, and the users of MariaDB's that killed runs had, which else the next run would remove."""
    leave_nothing(run, layout)
    if not run.check_mode:
        sql.forget_killed(layout.short)


def _listened(stream, found):
    """How many lines name something that is no directory; the first that tell a difference go into ``found``."""
    count = 0
    with stream:
        while line := stream.readline(8192):
            line = line.rstrip(b"\n")
            count += not line.endswith(b"/")
            if found is not None and len(found) < 2 * NAMED and not _SAME.search(line):
                found.append(line.decode("utf-8", "replace")[:200])
    return count


def _named(names):
    more = len(names) - NAMED
    return ", ".join(name[:120] for name in names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def asked(socket, user, tree, url, path, patience_s=PATIENCE_S):
    """What the copy's PHP answers; a Failure where it does not: its code may wait for ever, or the node be slow."""
    try:
        return health.ask(socket, user, tree, url, path, "/index.php", patience_s)
    except (OSError, ValueError) as error:
        raise _undecided(f"WordPress made no page of it within {patience_s} s ({error})", str(error)) from error


def judged_page(what, answer):
    """The Failure that an answer is which is no page."""
    no_database = NO_DATABASE if NO_DATABASE.encode() in answer.body else ""
    return _ended(f"WordPress came up, and {what}", f"{answer.errors} {no_database}")


def _ended(what, said, status=(), tar=0):
    """A Failure: of the backup, unless the words or the exit statuses are those of a node that could not do it.

    A command whose reader ended first was no reason: only what that one says counts.
    """
    killed = tar > WORST or any(one < 0 and one != -signal.SIGPIPE for one in status)
    if killed or _FULL.search(said) or _AWAY.search(said):
        return _undecided(what, said)
    return _failed(what)


def _undecided(what, said):
    return Failure(
        f"The backup was restored into a throwaway copy, and the node got in the way: {what}. So nothing is known of "
        "the backup, and what is served was not touched. Look at the node's disk, memory and MariaDB.",
        trueup_code=NO_ROOM if _FULL.search(said) else UNDECIDED,
    )


def _failed(what):
    return Failure(
        f"The backup was restored into a throwaway copy, and that failed: {what}. What is served was not touched. "
        "Back the environment up again, and drill that backup.",
        trueup_code=FAILED,
    )
