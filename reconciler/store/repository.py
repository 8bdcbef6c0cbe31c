"""The store: a bare Git repository, branch ``main``, with the fleet's documents in it, or in one folder of it.

Reading and writing meet here; how either is done stands in ``snapshot`` and ``writer``.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import git

from reconciler.core.entries import Document, Stalled
from reconciler.core.errors import Conflict, NotFound, StoreError
from reconciler.store import documents, hook
from reconciler.store.history import Change, History, PathHistory, changes_of, jobs_in_history, named_since, naming
from reconciler.store.importing import Author, Prepared
from reconciler.store.locks import writer_lock
from reconciler.store.objects import FOLDER, MAIN, Objects, configure, run
from reconciler.store.remote import FETCHED, Link, Remote
from reconciler.store.snapshot import Reader, Snapshot
from reconciler.store.upstream import ACCEPTED, Upstream
from reconciler.store.writer import Commit, Evaluate, Writer, import_commits, move_main, move_refs

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
_PLATFORM = "platform.yaml"


class Repository:
    """One store. Safe to share between threads; other processes may read, write and push at the same time."""

    def __init__(self, path: Path) -> None:
        self._objects = Objects(path)
        self._reader = Reader(self._objects)
        self._writer = Writer(self._objects, self._reader)
        self._history = History(self._objects)

    @classmethod
    def init(cls, path: Path, initial: Mapping[str, bytes], author: Author, folder: str = "") -> Self:
        """Makes a store with one commit that holds ``initial`` in ``folder``; it is there whole, or not at all.

        Raises:
            Conflict: something is at ``path``.
            StoreError: it could not be written.
        """
        _make(path, folder, lambda draft: _begin(draft, initial, author))
        return cls(path)

    @classmethod
    def clone(cls, path: Path, remote: Remote) -> Self:
        """Makes a store of what ``remote`` has, as far as it can be followed from there; whole, or not at all.

        Raises:
            Conflict: something is at ``path``.
            NotFound: there is no such branch, or no document in it.
            UpstreamUnreachable: the remote did not answer.
            StoreError: it could not be written.
        """
        _make(path, remote.folder, lambda draft: _take_over(draft, remote))
        return cls(path)

    @property
    def path(self) -> Path:
        return self._objects.path

    @property
    def folder(self) -> str:
        """Where in the repository the documents are, whose paths begin there; empty: at its top."""
        return self._objects.folder

    def located(self, path: str) -> str:
        """A document's path from the repository's top on, as people see it there."""
        return self._objects.inside(path)

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
        for _, document in itertools.islice(self.changes(path, most + 1), 1, None):
            if document is None:
                return
            yield document

    def content(self, path: str, revision: str) -> bytes | None:
        """The text of ``path`` at ``revision``; None: no document is there."""
        found = self._objects.content(f"{revision}:{self._objects.inside(path)}", documents.LARGEST)
        return found if isinstance(found, bytes) else None

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

    def changes(self, path: str, most: int) -> Iterator[tuple[Change, Document | Stalled | None]]:
        """The latest ``most`` commits that touched ``path``, newest first, with the document in each; None: removed."""
        for change in changes_of(self._objects, self.head(), path, most):
            yield change, self._document(path, change.id)

    def naming(self, path: str, words: Iterable[str]) -> Iterator[Document | Stalled | None]:
        """The document at ``path`` as it was before one of ``words`` came into it, and after each came or went.

        Oldest first, through the whole history; None: it was not there.
        """
        commits = naming(self._objects, self.head(), path, words)
        for revision in (f"{commits[0]}^", *commits) if commits else ():
            yield self._document(path, revision)

    def _document(self, path: str, revision: str) -> Document | Stalled | None:
        content = self._objects.content(f"{revision}:{self._objects.inside(path)}", documents.LARGEST)
        return documents.too_large(path, content) if isinstance(content, int) else _read(path, content)

    def named_since(self, path: str, word: str, revision: str | None = None) -> datetime | None:
        """When the document at ``path`` came to name ``word``; None: it never did."""
        return named_since(self._objects, self._objects.commit_id(revision or MAIN), path, word)

    def jobs_in_history(self, ids: Iterable[str], most: int = _MOST_COMMITS) -> dict[str, str]:
        """Which commit declares which of these jobs, in the latest ``most`` commits."""
        return jobs_in_history(self._objects, self.head(), ids, most)

    @property
    def upstream(self) -> Upstream:
        """What this store has of the repository that it follows, if it follows one."""
        return Upstream(self._objects, self._reader, self._writer)

    def move_to(self, folder: str) -> bool:
        """Moves the documents to ``folder``, where nobody can miss them: False when more than `trueup init` wrote here.

        Whoever has the store open must open it anew. Killed half-way, it can be done again.
        """
        with writer_lock(self.path), Repository(self.path) as now:
            if now.folder == folder:
                return True
            head = now.head()
            begun = now.upstream.is_at_its_beginning()
            # Whoever did it before may have been killed before the setting was written.
            if not begun or not _has_platform(now._objects, head, folder):
                if not now.upstream.is_untouched():
                    return False
                move_refs(now._objects, [f"update {MAIN} {_moved(now._objects, head, folder)} {head}"], head)
            now._objects.ask("config", "--local", *((FOLDER, folder) if folder else ("--unset", FOLDER)))
        return True

    def install_hook(self, socket_path: Path) -> None:
        """Makes each push send a datagram to ``socket_path``."""
        hook.install_hook(self.path, socket_path)

    def maintain(self) -> None:
        """Packs the repository when there is enough to pack; writers wait meanwhile."""
        self._writer.exclusively("gc", "--auto", "--quiet")


def _read(path: str, content: bytes | None) -> Document | Stalled | None:
    return None if content is None else documents.read(path, content)


def _has_platform(objects: Objects, commit: str, folder: str) -> bool:
    return objects.content(f"{commit}:{folder and f'{folder}/'}{_PLATFORM}", documents.LARGEST) is not None


def _moved(objects: Objects, commit: str, folder: str) -> str:
    """A first commit with its documents in another folder, and nothing else."""
    tree = objects.ask("rev-parse", "--verify", f"{objects.tree(commit)}^{{tree}}").decode().strip()
    for name in reversed(folder.split("/") if folder else []):
        tree = objects.ask("mktree", feed=f"040000 tree {tree}\t{name}\n".encode()).decode().strip()
    _, _, rest = objects.ask("cat-file", "commit", commit).partition(b"\n")
    content = f"tree {tree}\n".encode() + rest
    return objects.ask("hash-object", "-t", "commit", "-w", "--stdin", feed=content).decode().strip()


def _make(path: Path, folder: str, fill: Callable[[Path], None]) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise Conflict(f"{path} exists. Choose another place, or remove it.")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.mkdir(mode=0o700, parents=True)
        _make_bare(draft, folder)
        fill(draft)
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"The store {path} could not be made: {error.strerror}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _make_bare(path: Path, folder: str) -> None:
    command = git.Git(path)
    configure(command, path.resolve())
    steps: list[tuple[str, ...]] = [
        ("init", "--bare", "--quiet", "--template=", "--initial-branch=main", "--object-format=sha1")
    ]
    steps += [
        ("config", "--", key, value) for key, value in {**_CONFIG, **({FOLDER: folder} if folder else {})}.items()
    ]
    for name, *arguments in steps:
        if (answer := run(command, name, *arguments)).status:
            raise StoreError(f"`git {name}` failed: {answer.errors}")


def _begin(path: Path, initial: Mapping[str, bytes], author: Author) -> None:
    with closing(Objects(path)) as objects:
        first = Prepared(initial, "Start the store", author, None)
        move_main(objects, None, import_commits(objects, [first], None)[-1])


def _take_over(path: Path, remote: Remote) -> None:
    link = Link(path, remote)
    if link.head() is None:
        others = f"; it has {', '.join(found)}" if (found := link.branches()) else ""
        raise NotFound(f"{remote} has no such branch{others}. Name the branch that the lost store followed.")
    link.fetch()
    with closing(Objects(path)) as objects:
        commit = objects.commit_id(FETCHED)
        if not Reader(objects).at(commit).documents:
            raise NotFound(
                f"{remote} has no documents. Name the repository that the lost store followed, and where they are "
                "not at its top, their folder by --path."
            )
        move_refs(objects, [f"create {MAIN} {commit}", f"create {ACCEPTED} {commit}"], None)
