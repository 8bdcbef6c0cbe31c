"""The store: a bare Git repository, branch ``main``, with the fleet's documents in it.

Reading and writing meet here; how either is done stands in ``snapshot`` and ``writer``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import git

from reconciler.core.entries import Document, Stalled
from reconciler.core.errors import Conflict, StoreError
from reconciler.store import documents, hook
from reconciler.store.history import History, PathHistory, jobs_in_history, named_since
from reconciler.store.importing import Author, Prepared
from reconciler.store.objects import MAIN, Objects, configure, run
from reconciler.store.snapshot import Reader, Snapshot
from reconciler.store.writer import Commit, Evaluate, Writer, import_commits, move_main

__all__ = ["Author", "Commit", "Evaluate", "PathHistory", "Repository", "Snapshot"]

_CONFIG = {
    "core.fsync": "all",
    "core.fsyncMethod": "fsync",
    "receive.denyNonFastForwards": "true",
    "receive.denyDeletes": "true",
    "receive.fsckObjects": "true",
    "transfer.hideRefs": "refs/trueup",
    # Packing is the schedule's, by `maintain`: never a surprise in the middle of a push.
    "receive.autogc": "false",
    "gc.auto": "3000",
    "gc.autoPackLimit": "100",
    "gc.autoDetach": "false",
}
_MOST_COMMITS = 20_000


class Repository:
    """One store. Safe to share between threads; other processes may read, write and push at the same time."""

    def __init__(self, path: Path) -> None:
        self._objects = Objects(path)
        self._reader = Reader(self._objects)
        self._writer = Writer(self._objects, self._reader)
        self._history = History(self._objects)

    @classmethod
    def init(cls, path: Path, initial: Mapping[str, bytes], author: Author) -> Self:
        """Makes a store with one commit that holds ``initial``; it is there whole, or not at all.

        Raises:
            Conflict: something is at ``path``.
            StoreError: it could not be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise Conflict(f"{path} exists. Choose another place, or remove it.")
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            draft.mkdir(mode=0o700, parents=True)
            _fill(draft, initial, author)
            draft.replace(path)
        except OSError as error:
            raise StoreError(f"The store {path} could not be made: {error.strerror}.") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path)

    @property
    def path(self) -> Path:
        return self._objects.path

    def close(self) -> None:
        """Ends the Git processes that wait for questions."""
        self._objects.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def head(self) -> str:
        """The commit that ``main`` is at."""
        return self._objects.commit_id(MAIN)

    def read(self, revision: str | None = None) -> Snapshot:
        """All documents at ``revision``, or at the head. Only what changed since the last read is read and parsed.

        Raises:
            NotFound: ``revision`` names no commit.
        """
        return self._reader.at(self._objects.commit_id(revision or MAIN))

    def earlier(self, path: str, most: int = 20) -> Iterator[Document | Stalled]:
        """The document's versions before the one at the head, newest first, back to where it was added or removed."""
        literal = f":(literal){path}"
        log = self._objects.ask("log", f"--max-count={most + 1}", "--format=%H", MAIN, "--", literal)
        for commit in log.decode().split()[1:]:
            answer = self._objects.run("cat-file", "blob", f"{commit}:{path}")
            if answer.status:
                return
            yield documents.read(path, answer.output)

    def commit(self, evaluate: Evaluate, author: Author, job: str | None = None) -> Commit:
        """Commits the edit that ``evaluate`` makes of the head's documents, exactly once, even when it changes nothing.

        ``evaluate`` may be called several times and in another thread: it must be pure. It is given a snapshot in
        which the edits before it in the same group stand already. When this returns, the commit is on disk.

        Raises:
            Conflict: a document to be made exists, or one to be changed is gone or stalled.
            StoreError: nothing was written.
            Exception: whatever ``evaluate`` raised; nothing was written for it.
        """
        return self._writer.commit(evaluate, author, job)

    def history(self, revision: str | None = None) -> Mapping[str, PathHistory]:
        """How often and when each path changed up to ``revision``; paths that are gone are still told of."""
        return self._history.at(self._objects.commit_id(revision or MAIN))

    def named_since(self, path: str, word: str, revision: str | None = None) -> datetime | None:
        """When the document at ``path`` came to name ``word``; None: it never did."""
        return named_since(self._objects, self._objects.commit_id(revision or MAIN), path, word)

    def jobs_in_history(self, ids: Iterable[str], most: int = _MOST_COMMITS) -> dict[str, str]:
        """Which commit declares which of these jobs, in the latest ``most`` commits."""
        return jobs_in_history(self._objects, self.head(), ids, most)

    def install_hook(self, socket_path: Path) -> None:
        """Makes each push send a datagram to ``socket_path``."""
        hook.install_hook(self.path, socket_path)

    def maintain(self) -> None:
        """Packs the repository when there is enough to pack; writers wait meanwhile."""
        self._writer.exclusively("gc", "--auto", "--quiet")


def _fill(path: Path, initial: Mapping[str, bytes], author: Author) -> None:
    command = git.Git(path)
    configure(command, path.resolve())
    steps: list[tuple[str, ...]] = [
        ("init", "--bare", "--quiet", "--template=", "--initial-branch=main", "--object-format=sha1")
    ]
    steps += [("config", "--", key, value) for key, value in _CONFIG.items()]
    for name, *arguments in steps:
        if (answer := run(command, name, *arguments)).status:
            raise StoreError(f"`git {name}` failed: {answer.errors}")
    objects = Objects(path)
    try:
        first = Prepared(initial, "Start the store", author, None)
        move_main(objects, None, import_commits(objects, [first], None)[-1])
    finally:
        objects.close()
