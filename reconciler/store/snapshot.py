"""The documents of the store at one revision, read as little as can be: only what changed is read and parsed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import NamedTuple

from reconciler.core.entries import Document, Stalled
from reconciler.store import documents
from reconciler.store.objects import Objects, blob_id

_REGULAR = {b"100644", b"100755", b"100664"}
_ODD = {b"120000": "a symbolic link", b"160000": "a submodule"}
_KEPT = 8
_AT_ONCE = 16 << 20
"""Bytes that are read together."""
_pending = count(1)


@dataclass(frozen=True)
class Snapshot:
    """All documents at one revision. It never changes, so it may be shared between threads."""

    revision: str
    """The commit; ``<commit>+<number>`` while edits of the same group stand on it that aren't committed yet."""
    entries: Mapping[str, str]
    """Path to blob id; of what is no regular file: ``<mode>:<id>``."""
    documents: Mapping[str, Document | Stalled]
    pending: frozenset[str] = frozenset()
    """What those edits change, even where they change it back."""

    def changed_since(self, earlier: Snapshot | None) -> frozenset[str]:
        """The paths that were added, changed or removed after ``earlier``; all of them when it is None."""
        if earlier is None:
            return frozenset(self.entries)
        return frozenset(path for path, _ in self.entries.items() ^ earlier.entries.items())

    def with_contents(self, contents: Mapping[str, bytes | None]) -> Snapshot:
        """What this will be once documents with these contents are committed; None: removed."""
        kept = {path: content for path, content in contents.items() if content is not None}
        gone = contents.keys() - kept.keys()
        entries = {path: id_ for path, id_ in self.entries.items() if path not in gone}
        found = {path: document for path, document in self.documents.items() if path not in gone}
        return Snapshot(
            f"{self.revision.partition('+')[0]}+{next(_pending)}",
            {**entries, **{path: blob_id(content) for path, content in kept.items()}},
            {**found, **{path: documents.read(path, content) for path, content in kept.items()}},
            self.pending | contents.keys(),
        )


class _Entry(NamedTuple):
    mode: bytes
    id: str
    path: str
    named: bool
    """Whether the name is UTF-8."""


class Reader:
    """Snapshots of one repository; the latest few are kept, and the next is made from the one before."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._recent: OrderedDict[str, Snapshot] = OrderedDict()
        self._turn = Lock()

    def at(self, revision: str) -> Snapshot:
        """The snapshot at a full commit id."""
        with self._turn:
            if revision in self._recent:
                self._recent.move_to_end(revision)
                return self._recent[revision]
            base = next(reversed(self._recent.values())) if self._recent else None
            return self._keep(self._after(base, revision) if base else self._whole(revision))

    def remember(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot that the writer knows already."""
        with self._turn:
            self._keep(snapshot)

    def _keep(self, snapshot: Snapshot) -> Snapshot:
        self._recent[snapshot.revision] = snapshot
        while len(self._recent) > _KEPT:
            self._recent.popitem(last=False)
        return snapshot

    def _whole(self, revision: str) -> Snapshot:
        listing = self._objects.ask("ls-tree", "-r", "-l", "-z", "--full-tree", self._objects.tree(revision))
        entries: dict[str, str] = {}
        found: dict[str, Document | Stalled] = {}
        for part in _parts(_listed(listing)):
            asked = [entry.id for entry, size in part if size is not None and size <= documents.LARGEST]
            contents = dict(zip(asked, self._objects.blobs(asked), strict=True))
            for entry, _ in part:
                self._add(entry, entries, found, contents.get(entry.id))
        return Snapshot(revision, entries, found)

    def _after(self, base: Snapshot, revision: str) -> Snapshot:
        trees = (self._objects.tree(base.revision), self._objects.tree(revision))
        listing = self._objects.ask("diff-tree", "-r", "-z", "--no-renames", *trees)
        entries, found = dict(base.entries), dict(base.documents)
        for entry in _changes(listing):
            entries.pop(entry.path, None)
            found.pop(entry.path, None)
            if entry.mode != b"000000":
                self._add(entry, entries, found)
        return Snapshot(revision, entries, found)

    def _add(
        self,
        entry: _Entry,
        entries: dict[str, str],
        found: dict[str, Document | Stalled],
        content: bytes | None = None,
    ) -> None:
        """``content``: of the entry's blob; None: not read yet."""
        if not _concerns_us(entry):
            return
        regular = entry.mode in _REGULAR
        entries[entry.path] = entry.id if regular else f"{entry.mode.decode()}:{entry.id}"
        found[entry.path] = self._document(entry, content) if regular else _odd(entry)

    def _document(self, entry: _Entry, known: bytes | None) -> Document | Stalled:
        if not entry.named:
            return Stalled(entry.path, None, "its name is not UTF-8. Rename the file.")
        if entry.path.endswith(".yml"):
            return Stalled(entry.path, None, "its name ends in .yml. Rename it to .yaml.")
        content = known if known is not None else self._objects.blob(entry.id, documents.LARGEST)
        if isinstance(content, int):
            return documents.too_large(entry.path, content)
        return documents.read(entry.path, content)


def _listed(listing: bytes) -> Iterator[tuple[_Entry, int | None]]:
    """The entries of a tree that concern us, with the sizes of blobs."""
    for line in listing.split(b"\0")[:-1]:
        facts, _, name = line.partition(b"\t")
        mode, _, id_, size = facts.split()
        entry = _entry(mode, id_, name)
        if _concerns_us(entry):
            yield entry, int(size) if size.isdigit() else None


def _parts(listed: Iterable[tuple[_Entry, int | None]]) -> Iterator[list[tuple[_Entry, int | None]]]:
    """In parts whose contents fit into memory together."""
    part: list[tuple[_Entry, int | None]] = []
    room = _AT_ONCE
    for entry, size in listed:
        part.append((entry, size))
        room -= (size or 0) + 100
        if room < 0:
            yield part
            part, room = [], _AT_ONCE
    if part:
        yield part


def _entry(mode: bytes, id_: bytes, name: bytes) -> _Entry:
    try:
        return _Entry(mode, id_.decode(), name.decode(), True)
    except UnicodeDecodeError:
        return _Entry(mode, id_.decode(), name.decode(errors="backslashreplace"), False)


def _changes(listing: bytes) -> Iterator[_Entry]:
    fields = listing.split(b"\0")[:-1]
    for facts, name in zip(fields[::2], fields[1::2], strict=True):
        _, mode, _, id_, _ = facts.removeprefix(b":").split()
        yield _entry(mode, id_, name)


def _concerns_us(entry: _Entry) -> bool:
    path = entry.path
    if path.startswith(".") or "/." in path:
        return False
    ours = path.startswith(("nodes/", "sites/"))
    return (
        path.endswith(".yaml")
        or (path.endswith(".yml") and (ours or path == "platform.yml"))
        or (ours and entry.mode not in _REGULAR)
    )


def _odd(entry: _Entry) -> Stalled:
    what = _ODD.get(entry.mode, f"an entry of mode {entry.mode.decode()}")
    return Stalled(entry.path, None, f"it is {what}, which is never followed. Put a plain file here.")
