"""A fleet from a store that no control plane has opened: a bare repository's ``main``, or a checkout's files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from reconciler.core.entries import Document, Stalled, parse
from reconciler.core.errors import NotFound, StoreError
from reconciler.core.fleet import Fleet, assemble
from reconciler.store import documents
from reconciler.store.repository import Repository


def read_fleet(store: Path) -> Fleet:
    """The fleet in ``store``.

    Raises:
        NotFound: there is nothing at that path, or no document in it.
        StoreError: it cannot be read.
    """
    if not store.is_dir():
        raise NotFound(f"There is no store at {store}. Name a bare repository or a directory of documents.")
    revision, found = _of_repository(store) if (store / "HEAD").is_file() else (str(store), list(_of_directory(store)))
    if not found:
        raise NotFound(f"{store} holds no documents. Name the directory that has platform.yaml, nodes and sites.")
    return assemble(revision, [one if isinstance(one, Stalled) else parse(one) for one in found])


def _of_repository(store: Path) -> tuple[str, list[Document | Stalled]]:
    with Repository(store) as repository:
        snapshot = repository.read()
        return snapshot.revision, list(snapshot.documents.values())


def _of_directory(top: Path) -> Iterator[Document | Stalled]:
    for directory, names, files in os.walk(top):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if name.endswith(".yaml") and not name.startswith("."):
                yield _document(top, Path(directory) / name)


def _document(top: Path, path: Path) -> Document | Stalled:
    name = path.relative_to(top).as_posix()
    if path.is_symlink():
        return Stalled(name, None, "it is a symbolic link, which is never followed. Put a plain file here.")
    try:
        return documents.read(name, path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}. Correct its permissions.") from error
