"""A bare Git repository's objects and refs, through GitPython. Of documents it knows where they are.

Commands run as argv lists with their data on standard input; names never stand where an option could. Objects
come from one persistent ``cat-file --batch``. ``Repo.index`` and the config writers are never used.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import git
from git.exc import GitError

from reconciler.core.errors import NotFound, StoreError

MAIN = "refs/heads/main"
NOTHING = "0" * 40
"""What a ref that isn't there is said to hold."""
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
FOLDER = "trueup.folder"
"""The repository's own setting that says where its documents are."""

_HEX = re.compile(r"[0-9a-f]{40}")
SETTINGS = [
    "core.fsync=all",
    "fastimport.unpackLimit=1",
    "core.fsyncMethod=fsync",
    "core.quotePath=true",
    "core.filesRefLockTimeout=1000",
    # A path is a name here: a document that looks like another one is not that one moved.
    "merge.renames=false",
]
_LONGEST_S = 600


class Answer(NamedTuple):
    status: int
    output: bytes
    errors: str


class Objects:
    """The objects and refs of the bare repository at ``path``. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        try:
            self._repo = git.Repo(self.path, search_parent_directories=False, expand_vars=False)
        except (GitError, OSError) as error:
            raise StoreError(f"{path} is no Git repository. Make the store with `trueup init`.") from error
        if not self._repo.bare:
            raise StoreError(f"{path} is a work tree; the store is a bare repository. Make one with `trueup init`.")
        self._git = self._repo.git
        configure(self._git, self.path)
        self._batch = Lock()
        self.folder = self.run("config", "--local", "--get", FOLDER).output.decode().strip()
        """The folder that has the documents, without a slash at its end; empty: the top."""

    def close(self) -> None:
        with self._batch:
            self._git.clear_cache()
            self._repo.close()

    def run(
        self, command: str, *arguments: str, feed: bytes = b"", settings: Mapping[str, str] | None = None
    ) -> Answer:
        """One Git command with ``feed`` on its standard input, whatever its status; ``settings`` hold for it alone."""
        return run(self._git, command, *arguments, feed=feed, settings=settings)

    def ask(self, command: str, *arguments: str, feed: bytes = b"") -> bytes:
        """What one Git command printed.

        Raises:
            StoreError: its status wasn't 0.
        """
        answer = self.run(command, *arguments, feed=feed)
        if answer.status:
            raise StoreError(f"`git {command}` failed in {self.path}: {answer.errors}")
        return answer.output

    def commit_id(self, revision: str = MAIN) -> str:
        """The commit that ``revision`` names.

        Raises:
            NotFound: it names none.
            StoreError: it is the branch itself that isn't there.
        """
        if not revision or re.search(r"\s|\0", revision):
            raise NotFound(f"`{revision!r}` names no commit of the store.")
        with self._batch:
            try:
                found, _, _ = self._header(f"{revision}^{{commit}}")
            except ValueError as error:
                if revision == MAIN:
                    raise StoreError(f"The store {self.path} has no branch main. Put the store back.") from error
                raise NotFound(f"`{revision}` names no commit of the store.") from error
            except OSError as error:
                raise StoreError(f"Git cannot read {self.path}: {error.strerror}. Put the store back.") from error
        # GitPython answers with bytes where its annotation says text.
        return os.fsdecode(found)

    def _header(self, name: str) -> tuple[str, str, int]:
        try:
            return self._git.get_object_header(name)
        except (OSError, ValueError):
            # The process may have been killed; a fresh one knows better.
            self._git.clear_cache()
            return self._git.get_object_header(name)

    def blob(self, blob_id: str, most: int) -> bytes | int:
        """The content of a blob; its size instead where that is more than ``most``."""
        with self._batch:
            try:
                return self._blob(blob_id, most)
            except (OSError, ValueError):
                self._git.clear_cache()
            try:
                return self._blob(blob_id, most)
            except (OSError, ValueError) as error:
                raise StoreError(f"Object {blob_id} is missing in {self.path}. Run `git fsck` there.") from error

    def blobs(self, blob_ids: Iterable[str]) -> Iterator[bytes]:
        """The contents of many blobs, in their order: one process reads them all, asked once."""
        asked = list(blob_ids)
        output = self.ask("cat-file", "--batch", feed="".join(f"{one}\n" for one in asked).encode())
        at = 0
        for one in asked:
            end = output.index(b"\n", at)
            kind, _, size = output[at:end].partition(b" ")[2].partition(b" ")
            if kind != b"blob":
                raise StoreError(f"Object {one} is missing in {self.path}. Run `git fsck` there.")
            yield output[end + 1 : end + 1 + int(size)]
            at = end + 1 + int(size) + 1

    def content(self, name: str, most: int) -> bytes | int | None:
        """What ``blob`` answers of the blob that ``commit:path`` names; None: the commit has none there."""
        with self._batch:
            try:
                found, kind, _ = self._header(name)
            except ValueError:
                return None
            except OSError as error:
                raise StoreError(f"Git cannot read {self.path}: {error.strerror}. Put the store back.") from error
        return self.blob(os.fsdecode(found), most) if os.fsdecode(kind) == "blob" else None

    def _blob(self, blob_id: str, most: int) -> bytes | int:
        _, _, size, stream = self._git.stream_object_data(blob_id)
        if size <= most:
            return stream.read(size)
        while stream.read(1 << 16):
            pass
        return size

    def inside(self, path: str) -> str:
        """A document's path as the repository's trees name it."""
        return f"{self.folder}/{path}" if self.folder else path

    def tree(self, revision: str) -> str:
        """What a full commit id has in the folder of the documents: a tree, an empty one where no such folder is."""
        if not self.folder:
            return commit_hex(revision)
        with self._batch:
            try:
                found, kind, _ = self._header(f"{commit_hex(revision)}:{self.folder}")
            except ValueError:
                return EMPTY_TREE
            except OSError as error:
                raise StoreError(f"Git cannot read {self.path}: {error.strerror}. Put the store back.") from error
        return os.fsdecode(found) if os.fsdecode(kind) == "tree" else EMPTY_TREE

    def trees(self, revisions: Iterable[str]) -> list[str]:
        """The same of many commits, asked at once."""
        asked = [commit_hex(revision) for revision in revisions]
        feed = "".join(f"{one}:{self.folder}\n" for one in asked).encode()
        rows = (line.split() for line in self.ask("cat-file", "--batch-check", feed=feed).decode().splitlines())
        return [row[0] if row[1:2] == ["tree"] else EMPTY_TREE for row in rows]

    def is_ancestor(self, older: str, newer: str) -> bool:
        return self.run("merge-base", "--is-ancestor", commit_hex(older), commit_hex(newer)).status == 0


def configure(command: git.Git, path: Path) -> None:
    """Makes ``command`` work on the repository at ``path``, whatever the caller's environment names."""
    command.update_environment(GIT_NO_REPLACE_OBJECTS="1", GIT_OPTIONAL_LOCKS="0", GIT_TERMINAL_PROMPT="0")
    command.set_persistent_git_options(git_dir=str(path), c=SETTINGS)


def run(
    command: git.Git, name: str, *arguments: str, feed: bytes = b"", settings: Mapping[str, str] | None = None
) -> Answer:
    try:
        process = getattr(command, name.replace("-", "_"))(
            *arguments, istream=subprocess.PIPE, as_process=True, env=_environment(settings or {})
        )
        output, errors = process.communicate(feed, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        process.proc.kill()
        process.proc.communicate()
        raise StoreError(f"`git {name}` took longer than {_LONGEST_S} s.") from error
    except (GitError, OSError) as error:
        raise StoreError(f"`git {name}` could not be run: {error}") from error
    return Answer(process.proc.returncode, output, errors.decode(errors="replace").strip())


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """How Git is told settings without an argument for each."""
    names = {f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(settings)}
    values = {f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(settings.values())}
    return {"GIT_CONFIG_COUNT": str(len(settings)), **names, **values} if settings else {}


def commit_hex(revision: str) -> str:
    """``revision`` when it is a full commit id, so that it can stand on a command line."""
    if not _HEX.fullmatch(revision):
        raise NotFound(f"`{revision}` is no full commit id.")
    return revision


def blob_id(content: bytes) -> str:
    """The id that Git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
