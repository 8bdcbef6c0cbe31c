"""Archives from outside, read into memory and refused there if they hold anything but plain files; and ours, written
so that the same files always give the same bytes. Knows nothing of where an archive comes from or what it is for.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import PurePosixPath

from reconciler.core.errors import ArtifactError

Tree = dict[str, bytes]
"""Relative path to content, of regular files alone."""

MAX_TREE_BYTES = 512 << 20
MAX_TREE_FILES = 50_000


def tree_of(stream: io.BufferedIOBase, name: str, root: str) -> Tree:
    """The regular files under directory ``root`` of a gzipped tar archive. Refuses what a tree cannot hold."""
    tree: Tree = {}
    size = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as archive:
            for member in archive:
                path = _relative(member.name, root, name)
                if path is None or member.isdir():
                    continue
                size += member.size
                _check(member.isreg(), member.name, path, tree, size, name)
                content = archive.extractfile(member)
                tree[path] = content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ArtifactError(f"{name} is no whole archive: {error}.") from error
    if not tree:
        raise ArtifactError(f"{name} has nothing under {root}/.")
    return tree


def tree_of_zip(stream: io.BufferedIOBase, name: str, root: str) -> Tree:
    """The regular files under directory ``root`` of a zip archive; else as ``tree_of``."""
    tree: Tree = {}
    size = 0
    try:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                path = _relative(member.filename.rstrip("/"), root, name)
                if path is None or member.is_dir():
                    continue
                kind = stat.S_IFMT(member.external_attr >> 16)
                _check(kind in {0, stat.S_IFREG}, member.filename, path, tree, size + member.file_size, name)
                with archive.open(member) as file:
                    # What a zip says of its sizes is the sender's word.
                    tree[path] = file.read(MAX_TREE_BYTES - size + 1)
                size += len(tree[path])
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ArtifactError(f"{name} is no whole archive: {error}.") from error
    if size > MAX_TREE_BYTES or not tree:
        raise ArtifactError(f"{name} has nothing under {root}/, or more than {MAX_TREE_BYTES >> 20} MiB.")
    return tree


def member_of(stream: io.BufferedIOBase, name: str, path: str) -> bytes:
    """The one regular file ``path`` of a gzipped tar archive."""
    parent, _, filename = path.rpartition("/")
    tree = tree_of(stream, name, parent)
    if filename not in tree:
        raise ArtifactError(f"{name} has no file {path}.")
    return tree[filename]


def pack(tree: Mapping[str, bytes]) -> bytes:
    """The tree as ``wordpress/…`` in a gzipped tar: sorted, no times, root's, files 0644 and directories 0755."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for path in sorted({f"wordpress/{name}" for name in _directories(tree)} | {"wordpress"}):
            archive.addfile(_entry(path, tarfile.DIRTYPE, 0o755))
        for name in sorted(tree):
            archive.addfile(
                _entry(f"wordpress/{name}", tarfile.REGTYPE, 0o644, len(tree[name])), io.BytesIO(tree[name])
            )
    return buffer.getvalue()


def digest_of_tree(tree: Mapping[str, bytes]) -> str:
    """sha256 over the sorted lines ``<sha256>  <path>\\n`` of a tree's files."""
    lines = sorted(f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in tree.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _directories(tree: Mapping[str, bytes]) -> set[str]:
    return {str(parent) for name in tree for parent in PurePosixPath(name).parents if str(parent) != "."}


def _entry(path: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.size = kind, mode, size
    entry.uname = entry.gname = "root"
    return entry


def _relative(member: str, root: str, archive: str) -> str | None:
    """``member`` as seen from ``root``; None: it lies elsewhere."""
    if not member.isprintable() or "\\" in member or member.startswith("/") or ".." in member.split("/"):
        raise ArtifactError(f"{archive} has a member {member!r} that could lie outside of it. Do not use it.")
    path = PurePosixPath(member)
    return str(path.relative_to(root)) if path.is_relative_to(root) else None


def _check(regular: bool, member: str, path: str, tree: Tree, size: int, archive: str) -> None:
    if not regular:
        raise ArtifactError(f"{archive} has {member!r}, neither file nor directory. Do not use it.")
    if path in tree:
        raise ArtifactError(f"{archive} has {member!r} twice. Do not use it.")
    if size > MAX_TREE_BYTES or len(tree) >= MAX_TREE_FILES:
        raise ArtifactError(f"{archive} is larger than {MAX_TREE_BYTES >> 20} MiB or {MAX_TREE_FILES} files.")
