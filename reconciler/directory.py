"""A fleet from a plain directory of documents: a checkout of the store, as a pull request's author has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from reconciler.core.errors import Invalid
from reconciler.core.fleet import Document, Fleet, Stalled, assemble, parse
from reconciler.store.documents import read


def read_directory(top: Path) -> Fleet:
    """The fleet of the documents under ``top``; its revision is ``working tree``.

    Raises:
        Invalid: ``top`` is no directory.
    """
    if not top.is_dir():
        raise Invalid(f"{top} is no directory. Name the directory that holds platform.yaml, nodes and sites.")
    documents = [_read(top, path) for path in _paths(top)]
    return assemble("working tree", [item if isinstance(item, Stalled) else parse(item) for item in documents])


def _paths(top: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(top):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if name.endswith(".yaml") and not name.startswith("."):
                yield Path(directory) / name


def _read(top: Path, path: Path) -> Document | Stalled:
    name = path.relative_to(top).as_posix()
    if path.is_symlink():
        return Stalled(name, None, "it is a symbolic link, which is never followed. Put a plain file here.")
    try:
        return read(name, path.read_bytes())
    except OSError as error:
        return Stalled(name, None, f"cannot be read: {error.strerror}.")
