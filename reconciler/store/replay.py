"""Commits of ours made anew on another head: a job's from its intent, any other one as a cherry-pick.

What cannot be made anew is not lost: it is named, with the reason, and the rest goes on without it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from reconciler.core.entries import Stalled, parse
from reconciler.core.errors import RecordsError, StoreError, TrueupError
from reconciler.store.history import TRAILER
from reconciler.store.importing import TRUEUP, Author, person
from reconciler.store.locks import writer_lock
from reconciler.store.objects import EMPTY_TREE, Objects, commit_hex
from reconciler.store.snapshot import Reader, Snapshot
from reconciler.store.writer import Draft, Evaluate, Writer, import_commits

REPLAYED = "refs/trueup/replayed"

Redo = Callable[[str], Evaluate | None]
"""How the intent of the job with this id is evaluated anew; None: its row is gone, or says too little."""

_LARGEST_BATCH = 256
_SHAPE = f"%H%x00%P%x00%an%x00%ae%x00%at%x00%cn%x00%ce%x00%(trailers:key={TRAILER},valueonly,separator=%x20)"


class CannotApply(Exception):
    """The commit doesn't fit the new head; the text says why."""


@dataclass(frozen=True)
class Ours:
    """A commit that the new head doesn't have."""

    id: str
    parents: tuple[str, ...]
    author: Author
    authored: int
    job: str | None
    """The job that it declares; None where somebody else than Trueup made the commit."""


@dataclass
class Replayed:
    """How far it has come."""

    tip: str
    moved: dict[Ours, str] = field(default_factory=dict)
    """The commits that were made anew, and as what."""
    dropped: dict[Ours, str] = field(default_factory=dict)
    """Those that could not be, and why."""


@dataclass
class _Batch:
    """Jobs' commits in a row: evaluated one upon the other, and written at once."""

    tip: str
    draft: Draft | None = None
    commits: list[Ours] = field(default_factory=list)


def ours(objects: Objects, head: str, *without: str) -> list[Ours]:
    """The commits of ``head`` that none of the others has, oldest first."""
    excluded = [f"^{commit_hex(commit)}" for commit in without]
    # A name may hold what Python, but not Git, takes for the end of a line.
    log = objects.ask("log", "--topo-order", "--reverse", f"--format={_SHAPE}", commit_hex(head), *excluded, "--")
    return [_ours(line.split("\0")) for line in log.decode(errors="replace").split("\n") if line]


def _ours(row: list[str]) -> Ours:
    id_, parents, name, email, seconds, committer, address, jobs = row
    made_by_us = Author(committer, address) == TRUEUP and len(jobs.split()) == 1
    return Ours(id_, tuple(parents.split()), Author(name, email), int(seconds), jobs if made_by_us else None)


class Replay:
    """Makes commits anew, one upon the other. ``locked``: the caller holds the writer's lock."""

    def __init__(self, objects: Objects, reader: Reader, writer: Writer, redo: Redo) -> None:
        self._objects = objects
        self._reader = reader
        self._writer = writer
        self._redo = redo

    def add(self, commits: list[Ours], done: Replayed, *, locked: bool) -> None:
        """Make ``commits`` anew on ``done.tip``, which moves with each.

        Raises:
            StoreError, RecordsError: the store or the database failed; nothing can be said of the commits.
        """
        batch = _Batch(done.tip)
        for commit in commits:
            evaluate = self._redo(commit.job) if commit.job else None
            if evaluate is None or len(batch.commits) == _LARGEST_BATCH:
                batch = self._written_batch(batch, done, locked=locked)
            try:
                if evaluate is None:
                    done.tip = batch.tip = done.moved[commit] = self._pick(commit, done.tip)
                else:
                    self._evaluate(commit, evaluate, batch)
            except CannotApply as error:
                done.dropped[commit] = str(error)
        self._written_batch(batch, done, locked=locked)

    def _evaluate(self, commit: Ours, evaluate: Evaluate, batch: _Batch) -> None:
        if batch.draft is None:
            batch.draft = self._writer.draft(self._reader.at(batch.tip))
        try:
            batch.draft.add(evaluate, commit.author, commit.job, commit.authored)
        except (StoreError, RecordsError):
            raise
        except TrueupError as error:
            raise CannotApply(error.message) from error
        batch.commits.append(commit)

    def _written_batch(self, batch: _Batch, done: Replayed, *, locked: bool) -> _Batch:
        """Write what the batch has; a new one on top of that."""
        if batch.draft and batch.commits:
            with contextlib.nullcontext() if locked else writer_lock(self._objects.path):
                made = import_commits(self._objects, batch.draft.commits, batch.tip, REPLAYED)
            done.moved |= dict(zip(batch.commits, made, strict=True))
            done.tip = made[-1]
        return _Batch(done.tip)

    def _pick(self, commit: Ours, tip: str) -> str:
        """The commit's change on ``tip``, path by path; ``tip`` itself where it has all of it already."""
        found = self._change(commit)
        if found is None:
            return tip
        before, after = found
        base = self._bare_commit(self._tree(tip), before)
        answer = self._objects.run("merge-tree", "--write-tree", "--no-messages", "--name-only", base, after)
        tree, *conflicts = answer.output.decode(errors="replace").splitlines() or [""]
        if answer.status not in {0, 1}:
            raise StoreError(f"`git merge-tree` failed in {self._objects.path}: {answer.errors}")
        if answer.status:
            paths = ", ".join(sorted({path for path in conflicts if path})[:5])
            raise CannotApply(f"it changes what was changed upstream, too: {paths}.")
        if tree == self._tree(tip):
            return tip
        made = self._rewritten(commit.id, tree, tip)
        self._refuse_newly_stalled(commit, self._reader.at(tip), self._reader.at(made))
        return made

    def _change(self, commit: Ours) -> tuple[str, str] | None:
        """Two commits, one upon the other, between which lies what ``commit`` itself changed; None: nothing."""
        match commit.parents:
            case ():
                before = self._bare_commit(EMPTY_TREE)
            case (parent,):
                return parent, commit.id
            case (one, other):
                # What a merge brings in is picked by itself; what it decided between its parents is its own.
                answer = self._objects.run("merge-tree", "--write-tree", "--no-messages", "--name-only", one, other)
                if answer.status not in {0, 1}:
                    raise CannotApply("it merges histories that have nothing in common.")
                tree = answer.output.decode(errors="replace").splitlines()[0]
                if tree == self._tree(commit.id):
                    return None
                before = self._bare_commit(tree)
            case _:
                raise CannotApply("it merges more than two histories at once.")
        return before, self._bare_commit(self._tree(commit.id), before)

    def _tree(self, commit: str) -> str:
        return self._objects.ask("rev-parse", "--verify", f"{commit_hex(commit)}^{{tree}}").decode().strip()

    def _bare_commit(self, tree: str, *parents: str) -> str:
        """A commit for merging only: no ref ever names it."""
        somebody = person(TRUEUP).decode()
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        lines += [f"author {somebody} 0 +0000", f"committer {somebody} 0 +0000", "", "For merging only", ""]
        return self._written("\n".join(lines).encode())

    def _rewritten(self, commit: str, tree: str, parent: str) -> str:
        """The commit with another tree and parent, committed now: people and words stay, a signature doesn't hold."""
        raw = self._objects.ask("cat-file", "commit", commit_hex(commit))
        head, _, words = raw.partition(b"\n\n")
        kept = [line for line in _headers(head) if line.startswith((b"author ", b"committer ", b"encoding "))]
        kept[1] = kept[1].rpartition(b"> ")[0] + b"> %d +0000" % time.time()
        lines = [f"tree {tree}".encode(), f"parent {parent}".encode(), *kept]
        return self._written(b"\n".join(lines) + b"\n\n" + words)

    def _written(self, content: bytes) -> str:
        return self._objects.ask("hash-object", "-t", "commit", "-w", "--stdin", feed=content).decode().strip()

    def _refuse_newly_stalled(self, commit: Ours, before: Snapshot, after: Snapshot) -> None:
        """Two changes that are well by themselves may together make a document that is none."""
        meant = self._reader.at(commit.id)
        for path in sorted(after.changed_since(before)):
            stalled = _stalled(after, path)
            if stalled and not _stalled(before, path) and not _stalled(meant, path):
                raise CannotApply(f"together with what was changed upstream it makes no document: {stalled}")


def _headers(head: bytes) -> Iterator[bytes]:
    """The lines of a commit's header, without those that go on from one to the next."""
    return (line for line in head.split(b"\n") if not line.startswith(b" "))


def _stalled(snapshot: Snapshot, path: str) -> Stalled | None:
    document = snapshot.documents.get(path)
    found = document if document is None or isinstance(document, Stalled) else parse(document)
    return found if isinstance(found, Stalled) else None
