"""What the store's log tells: how often and when each document changed, and which commit declares which job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock

from reconciler.store.objects import Objects, commit_hex

TRAILER = "Trueup-Job"
_CHANGE = re.compile(r"([A-Z]+)\t([^\"].*)")


@dataclass(frozen=True)
class PathHistory:
    """The commits that touched one path. A document that was removed and came back goes on counting."""

    commits: int
    created_at: datetime
    updated_at: datetime


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
        log = self._objects.ask(
            "log", "--reverse", "--topo-order", "--cc", "--no-renames", "--name-status", "--format=@%ct", commits, "--"
        )
        return _counted(log.decode(errors="replace").splitlines(), dict(known))


def _counted(lines: Iterable[str], paths: dict[str, PathHistory]) -> dict[str, PathHistory]:
    moment = datetime.fromtimestamp(0, UTC)
    for line in lines:
        if line.startswith("@"):
            moment = datetime.fromtimestamp(int(line[1:]), UTC)
        # Names in quotes hold characters that no document's path has.
        elif change := _CHANGE.fullmatch(line):
            status, path = change.groups()
            paths[path] = _touched(paths.get(path), moment, came_back=set(status) == {"A"})
    return paths


def _touched(before: PathHistory | None, moment: datetime, *, came_back: bool) -> PathHistory:
    if before is None:
        return PathHistory(1, moment, moment)
    after = replace(before, commits=before.commits + 1, updated_at=max(before.updated_at, moment))
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
        f":(literal){path}",
    )
    return datetime.fromtimestamp(int(log), UTC) if log.strip() else None


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
