"""The one writer: waiting edits become one commit each, all in one import, then the branch moves at once.

An edit is evaluated on the head that it will stand on. Where somebody else moved the head meanwhile, every edit of
the group is evaluated again; nothing of a group that failed is ever seen.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Lock

from reconciler.core.entries import Stalled
from reconciler.core.errors import Conflict, HeadMoved, Invalid, StoreError
from reconciler.core.intents import Edit
from reconciler.store import documents
from reconciler.store.importing import INCOMING, Author, Prepared, checked_path, message, stream
from reconciler.store.locks import lock_files, remove_dead_keeps, remove_dead_locks, writer_lock
from reconciler.store.objects import MAIN, NOTHING, Answer, Objects
from reconciler.store.snapshot import Reader, Snapshot

Evaluate = Callable[[Snapshot], Edit]

_LARGEST_GROUP = 256
_MOST_RACES = 50
_LOCK_PATIENCE_S = 15.0
_FULL = 1 << 20


@dataclass(frozen=True)
class Commit:
    """An edit that is in the store for good."""

    revision: str
    paths: frozenset[str]
    """What it changed; empty when everything was so already."""


@dataclass(eq=False)
class _Waiting:
    evaluate: Evaluate
    author: Author
    job: str | None
    commit: Commit | None = None
    error: Exception | None = None
    called: Event = field(default_factory=Event)
    """Set when this is done, or when its thread is to write for everybody."""

    @property
    def done(self) -> bool:
        return self.commit is not None or self.error is not None


@dataclass
class _Group:
    """Edits evaluated one upon the other."""

    snapshot: Snapshot
    accepted: list[tuple[_Waiting, Prepared, Snapshot]] = field(default_factory=list)
    refused: list[tuple[_Waiting, Exception]] = field(default_factory=list)


class Draft:
    """Commits that are evaluated and not written yet."""

    def __init__(self, prepare: Callable[[_Waiting, Edit, _Group], Prepared], base: Snapshot) -> None:
        self._prepare = prepare
        self._group = _Group(base)

    @property
    def commits(self) -> list[Prepared]:
        return [prepared for _, prepared, _ in self._group.accepted]

    def add(self, evaluate: Evaluate, author: Author, job: str | None, authored: int) -> None:
        """One commit more.

        Raises:
            Exception: whatever ``evaluate`` raised, or that its edit doesn't go together with those before.
        """
        group, waiting = self._group, _Waiting(evaluate, author, job)
        prepared = replace(self._prepare(waiting, evaluate(group.snapshot), group), authored=authored)
        group.snapshot = group.snapshot.with_contents(prepared.contents)
        group.accepted.append((waiting, prepared, group.snapshot))


class Writer:
    """Commits to one repository, from any number of threads and processes."""

    def __init__(self, objects: Objects, reader: Reader) -> None:
        self._objects = objects
        self._reader = reader
        self._queue: deque[_Waiting] = deque()
        self._busy = False
        self._turn = Lock()

    def commit(self, evaluate: Evaluate, author: Author, job: str | None) -> Commit:
        """See ``Repository.commit``."""
        waiting = _Waiting(evaluate, author, job)
        with self._turn:
            self._queue.append(waiting)
            if not self._busy:
                self._busy = True
                waiting.called.set()
        waiting.called.wait()
        if not waiting.done:
            self._lead()
        if waiting.commit is None:
            raise waiting.error or StoreError("Nothing was committed.")
        return waiting.commit

    def draft(self, base: Snapshot) -> Draft:
        """Commits to be on ``base``, evaluated one upon the other."""
        return Draft(self._prepared, base)

    def exclusively(self, command: str, *arguments: str) -> None:
        """Runs one Git command while nobody writes."""
        with writer_lock(self._objects.path):
            remove_dead_locks(self._objects.path)
            remove_dead_keeps(self._objects.path)
            self._objects.ask(command, *arguments)

    def _lead(self) -> None:
        """Writes for everybody who waits now, then calls the first of those who came meanwhile."""
        with self._turn:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _LARGEST_GROUP))]
        try:
            self._write(batch)
        finally:
            with self._turn:
                self._busy = bool(self._queue)
                if self._queue:
                    self._queue[0].called.set()
            for waiting in batch:
                if not waiting.done:
                    waiting.error = StoreError("The commit was interrupted. Try again.")
                waiting.called.set()

    def _write(self, batch: list[_Waiting]) -> None:
        try:
            with writer_lock(self._objects.path):
                self._race(batch)
        except StoreError as error:
            for waiting in batch:
                if not waiting.done:
                    # Each thread raises its own, with its own traceback.
                    waiting.error = type(error)(str(error))
                    waiting.error.__cause__ = error

    def _race(self, batch: list[_Waiting]) -> None:
        """Evaluates and publishes until the head stayed where it was."""
        for _ in range(_MOST_RACES):
            base = self._reader.at(self._objects.commit_id())
            group = self._evaluated(batch, base)
            if self._published(group, base.revision):
                return
        raise HeadMoved(f"Others pushed to the store {_MOST_RACES} times meanwhile. Try again.")

    def _evaluated(self, batch: Sequence[_Waiting], base: Snapshot) -> _Group:
        group = _Group(base)
        for waiting in batch:
            if waiting.done:
                continue
            try:
                edit = waiting.evaluate(group.snapshot)
                prepared = self._prepared(waiting, edit, group)
            except Exception as error:  # noqa: BLE001 (raised again in the thread that asked)
                # On the bare head a refusal is final; on edits that aren't published yet it falls with them.
                if group.accepted:
                    group.refused.append((waiting, error))
                else:
                    waiting.error = error
                continue
            group.snapshot = group.snapshot.with_contents(prepared.contents)
            group.accepted.append((waiting, prepared, group.snapshot))
        return group

    def _prepared(self, waiting: _Waiting, edit: Edit, group: _Group) -> Prepared:
        message(edit.message, waiting.job)  # refuses a bad job id before anything is imported
        created = {path: _created(path, document, group.snapshot) for path, document in edit.create.items()}
        fields = edit.assign.keys() | edit.unset.keys()
        ways = [*created, *fields, *edit.rewrite, *edit.delete]
        if clash := {path for path in ways if ways.count(path) > 1}:
            raise Invalid(f"{min(clash)} is changed in two ways by one edit.")
        changed = {path: self._changed(path, edit, group) for path in sorted({*fields, *edit.rewrite})}
        contents: dict[str, bytes | None] = dict(created)
        contents |= {path: content for path, content in changed.items() if content is not None}
        contents |= {path: None for path in sorted(edit.delete) if path in group.snapshot.entries}
        return Prepared(contents, edit.message, waiting.author, waiting.job)

    def _changed(self, path: str, edit: Edit, group: _Group) -> bytes | None:
        """The document's new content; None when it was so already."""
        document = group.snapshot.documents.get(path)
        if document is None:
            raise Conflict(f"{path} is not in the store any more.")
        if isinstance(document, Stalled):
            raise Conflict(f"{document} Correct the document first.")
        before = self._content(path, group)
        if path in edit.rewrite:
            after = edit.rewrite[path]
        else:
            after = documents.edit(before, path, edit.assign.get(path, {}), edit.unset.get(path, frozenset()))
        if len(after) > documents.LARGEST:
            raise Conflict(f"{path} would become larger than {documents.LARGEST} bytes.")
        return after if after != before else None

    def _content(self, path: str, group: _Group) -> bytes:
        for _, prepared, _ in reversed(group.accepted):
            if (content := prepared.contents.get(path)) is not None:
                return content
        blob = self._objects.blob(group.snapshot.entries[path], documents.LARGEST)
        return blob if isinstance(blob, bytes) else b""

    def _published(self, group: _Group, base: str) -> bool:
        """Whether the group is in; False when the head had moved."""
        if group.accepted:
            prepared = [commit for _, commit, _ in group.accepted]
            revisions = import_commits(self._objects, prepared, base)
            if not move_main(self._objects, base, revisions[-1]):
                return False
            for (waiting, commit, _), revision in zip(group.accepted, revisions, strict=True):
                waiting.commit = Commit(revision, frozenset(commit.contents))
            self._reader.remember(replace(group.snapshot, revision=revisions[-1], pending=frozenset()))
        for waiting, error in group.refused:
            waiting.error = error
        return True


def _created(path: str, document: Mapping[str, object], snapshot: Snapshot) -> bytes:
    if path in snapshot.entries:
        raise Conflict(f"{path} exists. Choose another name.")
    kind = document.get("kind")
    schema = documents.schema_reference(path, kind) if isinstance(kind, str) else None
    content = documents.render(document, schema)
    if isinstance(stalled := documents.read(checked_path(path), content), Stalled):
        raise Invalid(str(stalled))
    return content


def import_commits(objects: Objects, prepared: Sequence[Prepared], base: str | None, ref: str = INCOMING) -> list[str]:
    """Writes the commits' objects, on the private ref only, and returns the commits' ids.

    Raises:
        StoreError: Git could not write them; what it left half-written is removed.
    """
    began = time.time()
    feed = stream(prepared, base, int(began), ref, objects.inside)
    answer = _past_locks(objects, "fast-import", "--quiet", "--force", "--date-format=raw", feed=feed)
    revisions = answer.output.decode().split()
    if answer.status or len(revisions) != len(prepared):
        _clean_up(objects, began)
        raise StoreError(f"The store could not be written: {_reason(objects, answer)} Nothing was changed.")
    return revisions


def move_main(objects: Objects, old: str | None, new: str) -> bool:
    """Moves ``main`` and drops the private ref in one transaction; False when ``main`` isn't at ``old`` any more.

    Raises:
        StoreError: Git could not write the ref.
    """
    moved = False
    try:
        moved = move_refs(objects, [f"update {MAIN} {new} {old or NOTHING}", f"delete {INCOMING}"], old)
    finally:
        if not moved:
            objects.run("update-ref", "--stdin", feed=f"delete {INCOMING}\n".encode())
    return moved


def move_refs(objects: Objects, commands: Sequence[str], head: str | None) -> bool:
    """Changes refs in one transaction, as ``git update-ref --stdin`` reads it; False when ``main`` left ``head``.

    Raises:
        StoreError: Git could not write them; none was changed.
    """
    feed = "\n".join(["start", *commands, "prepare", "commit", ""]).encode()
    answer = _past_locks(objects, "update-ref", "--stdin", feed=feed, head=head)
    if answer.status == 0:
        return True
    if head is not None and objects.commit_id() != head:
        return False
    raise StoreError(f"The store could not be written: {_reason(objects, answer)} Nothing was changed.")


def _past_locks(objects: Objects, *command: str, feed: bytes, head: str | None = None) -> Answer:
    """Runs the command, again while another Git process holds a ref; locks of dead ones are removed."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        answer = objects.run(*command, feed=feed)
        if answer.status == 0 or not _locked(objects, answer) or time.monotonic() > deadline:
            return answer
        if head is not None and objects.commit_id() != head:
            return answer
        remove_dead_locks(objects.path)
        time.sleep(0.02)


def _locked(objects: Objects, answer: Answer) -> bool:
    return "lock" in answer.errors and ("File exists" in answer.errors or bool(lock_files(objects.path)))


def _reason(objects: Objects, answer: Answer) -> str:
    # Git words a full disk in a dozen ways; the file system says it in one.
    if "No space left" in answer.errors or shutil.disk_usage(objects.path).free < _FULL:
        return "the disk is full. Free some space."
    lines = [line for line in answer.errors.splitlines() if line.startswith(("fatal:", "error:"))]
    return f"{lines[0] if lines else answer.errors or 'Git gave no reason'}."


def _clean_up(objects: Objects, began: float) -> None:
    """Removes what a failed import left: its ref, its report, and the temporary files that it began."""
    objects.run("update-ref", "--stdin", feed=f"delete {INCOMING}\n".encode())
    for pattern in ("fast_import_crash_*", "objects/pack/tmp_*", "objects/??/tmp_obj_*"):
        for path in objects.path.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime >= began - 1:
                    path.unlink()
    remove_dead_keeps(objects.path)
