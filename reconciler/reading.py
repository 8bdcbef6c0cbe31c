"""A fleet from a store that no control plane has opened: a bare repository's ``main``, a clone, or plain files."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from reconciler.core.entries import Document, Parsed, Stalled, parse
from reconciler.core.errors import NotFound
from reconciler.core.fleet import Fleet, assemble
from reconciler.store.objects import Objects
from reconciler.store.snapshot import Reader, Snapshot
from reconciler.store.trees import Trees


def read_fleet(store: Path) -> Fleet:
    """The fleet in ``store``: of a bare repository its head, of a directory what committing all that lies there gives.

    Raises:
        NotFound: there is nothing at that path, or no document in it.
        StoreError: it cannot be read.
    """
    if not store.is_dir():
        raise NotFound(f"There is no store at {store}. Name a bare repository or a directory of documents.")
    if (store / "HEAD").is_file():
        with closing(Objects(store)) as objects:
            return fleet_of(Reader(objects).at(objects.commit_id()), store)
    with Trees(store) as trees:
        return fleet_of(trees.read(trees.of_files()), store, revision=str(store))


class Documents:
    """The documents of a clone, read at several places; what is the same at two of them is parsed once."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._trees = Trees(store)
        self._parsed: dict[int, tuple[Document | Stalled, Parsed | Stalled | None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._trees.close()

    def at(self, revision: str) -> Fleet:
        """At a commit.

        Raises:
            NotFound: there is no such commit, or no document in it.
        """
        return self._fleet(self._trees.commit(revision))

    def staged(self) -> Fleet:
        """As `git commit` would commit them now."""
        return self._fleet(self._trees.of_index())

    def merging(self, base: str, head: str | None) -> tuple[Fleet, Fleet]:
        """At ``base``, and once ``head`` is merged into it; None: what lies in the clone.

        Raises:
            NotFound: there is no such commit.
            StoreError: they conflict.
        """
        trees = self._trees
        into, commit = trees.commit(base), trees.commit(head or "HEAD")
        if head is not None:
            return self._fleet(into), self._fleet(trees.merged(into, commit), revision=commit)
        with ThreadPoolExecutor(1) as beside:
            # Git looks through the files while the base is read.
            committed = beside.submit(lambda: trees.as_commit(trees.of_files(), commit))
            before = self._fleet(into)
            lying = committed.result()
        return before, self._fleet(trees.merged(into, lying), revision=lying)

    def _fleet(self, tree: str, *, revision: str | None = None) -> Fleet:
        snapshot = self._trees.read(tree)
        return fleet_of(snapshot, self._store, revision=revision or tree, parse_one=self._parse)

    def _parse(self, document: Document | Stalled) -> Parsed | Stalled | None:
        # The reader gives the same object for the same blob.
        known = self._parsed.get(id(document))
        if known is None:
            known = self._parsed[id(document)] = (document, _parsed(document))
        return known[1]


def fleet_of(
    snapshot: Snapshot,
    store: Path,
    *,
    revision: str | None = None,
    parse_one: Callable[[Document | Stalled], Parsed | Stalled | None] | None = None,
) -> Fleet:
    """The fleet of a snapshot that was read from ``store``.

    Raises:
        NotFound: it holds no document.
    """
    if not snapshot.documents:
        raise NotFound(f"{store} holds no documents. Name the directory that has platform.yaml, nodes and sites.")
    parsed = [(parse_one or _parsed)(one) for one in snapshot.documents.values()]
    return assemble(revision or snapshot.revision, parsed)


def _parsed(one: Document | Stalled) -> Parsed | Stalled | None:
    return one if isinstance(one, Stalled) else parse(one)
