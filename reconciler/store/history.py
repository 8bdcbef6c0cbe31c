"""What the store's log tells: how often and when each document changed, and which commit declares which job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock

from reconciler.store.objects import Objects, commit_hex

TRAILER = "Trueup-Job"
CONFIRMING = "Trueup-Confirm"
"""Names an environment that shall go back to former content, or go, whatever was written there since."""
_CHANGE = re.compile(r"([A-Z]+)\t([^\"].*)")


@dataclass(frozen=True)
class PathHistory:
    """The commits that touched one path. A document that was removed and came back goes on counting."""

    commits: int
    created_at: datetime
    updated_at: datetime
    last: str
    """The id of the last of them."""


@dataclass(frozen=True, slots=True)
class Change:
    """A commit that touched a document."""

    id: str
    at: datetime
    author: str
    subject: str
    jobs: tuple[str, ...]
    """The ids of the jobs that it declares."""
    confirmed: tuple[str, ...] = ()
    """The environments for which it confirms what it brings."""


class History:
    """The log of one repository, walked once and from then on only where it grew."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._turn = Lock()
        self._revision: str | None = None
        self._paths: Mapping[str, PathHistory] = {}

    def at(self, revision: str) -> Mapping[str, PathHistory]:
        """By path, for every path that any commit up to ``revision`` touched."""
        with self._turn:
            if revision == self._revision:
                return self._paths
            known = self._revision
            if known is not None and self._objects.is_ancestor(known, revision):
                paths = self._walk(f"{known}..{commit_hex(revision)}", self._paths)
            else:
                paths = self._walk(commit_hex(revision), {})
            self._revision, self._paths = revision, paths
            return paths

    def _walk(self, commits: str, known: Mapping[str, PathHistory]) -> dict[str, PathHistory]:
        # --cc names in a merge only what it changed itself: the commits that it brings in are counted on their own.
        shape = ("--reverse", "--topo-order", "--cc", "--no-renames", "--name-status", "--format=@%ct %H")
        folder = self._objects.folder
        # Full history: a commit counts wherever it came from, as it does where the documents are at the top.
        where = ("--full-history", commits, "--", f":(literal){folder}") if folder else (commits, "--")
        log = self._objects.ask("log", *shape, *where)
        return _counted(log.decode(errors="replace").splitlines(), dict(known), self._objects.inside(""))


def _counted(lines: Iterable[str], paths: dict[str, PathHistory], folder: str) -> dict[str, PathHistory]:
    moment, commit = datetime.fromtimestamp(0, UTC), ""
    for line in lines:
        if line.startswith("@"):
            seconds, _, commit = line[1:].partition(" ")
            moment = datetime.fromtimestamp(int(seconds), UTC)
        # Names in quotes hold characters that no document's path has.
        elif change := _CHANGE.fullmatch(line):
            status, path = change[1], change[2].removeprefix(folder)
            paths[path] = _touched(paths.get(path), moment, commit, came_back=set(status) == {"A"})
    return paths


def _touched(before: PathHistory | None, moment: datetime, commit: str, *, came_back: bool) -> PathHistory:
    if before is None:
        return PathHistory(1, moment, moment, commit)
    after = replace(before, commits=before.commits + 1, updated_at=max(before.updated_at, moment), last=commit)
    return replace(after, created_at=moment) if came_back else after


def named_since(objects: Objects, revision: str, path: str, word: str) -> datetime | None:
    """When the document at ``path`` last came to name ``word`` as a whole, or ceased to; None: it never did."""
    edge = r"[^a-z0-9.-]"
    pattern = f"-S(^|{edge}){re.escape(word)}({edge}|$)"
    log = objects.ask(
        "log",
        "--max-count=1",
        "--pickaxe-regex",
        pattern,
        "--format=%ct",
        commit_hex(revision),
        "--",
        f":(literal){objects.inside(path)}",
    )
    return datetime.fromtimestamp(int(log), UTC) if log.strip() else None


def naming(objects: Objects, revision: str, path: str, words: Iterable[str]) -> list[str]:
    """The commits in which a line of the document at ``path`` that has one of these words came or went, oldest first.

    Case does not count.
    """
    pattern = "|".join(re.escape(word) for word in words)
    if not pattern:
        return []
    log = objects.ask(
        "log",
        "--reverse",
        "--topo-order",
        "-m",
        "--regexp-ignore-case",
        f"-G{pattern}",
        "--format=%H",
        commit_hex(revision),
        "--",
        f":(literal){objects.inside(path)}",
    )
    # A merge is told once for each parent that it differs from.
    return list(dict.fromkeys(log.decode().split()))


def jobs_in_history(objects: Objects, revision: str, ids: Iterable[str], most: int) -> dict[str, str]:
    """Which commit declares which of these jobs, in the latest ``most`` commits.

    The oldest counts: a later one with the same trailer is somebody's cherry-pick or revert.
    """
    wanted = set(ids)
    log = objects.ask(
        "log",
        f"--max-count={most}",
        f"--format=%H %(trailers:key={TRAILER},valueonly,separator=%x20)",
        commit_hex(revision),
        "--",
    )
    found: dict[str, str] = {}
    for line in log.decode(errors="replace").splitlines():
        commit, _, jobs = line.partition(" ")
        found.update((job, commit) for job in jobs.split() if job in wanted)
    return found


def changes_of(objects: Objects, revision: str, path: str, most: int) -> list[Change]:
    """The latest ``most`` commits that touched the document at ``path``, newest first."""
    trailers = (f"%(trailers:key={key},valueonly,separator=%x20)" for key in (TRAILER, CONFIRMING))
    shape = "%x00".join(("%H", "%ct", "%an", "%s", *trailers))
    log = objects.ask(
        "log",
        f"--max-count={most}",
        f"--format={shape}",
        commit_hex(revision),
        "--",
        f":(literal){objects.inside(path)}",
    )
    rows = (line.split("\0") for line in log.decode(errors="replace").splitlines())
    return [
        Change(
            commit,
            datetime.fromtimestamp(int(seconds), UTC),
            author,
            subject,
            tuple(jobs.split()),
            tuple(confirmed.split()),
        )
        for commit, seconds, author, subject, jobs, confirmed in rows
    ]
