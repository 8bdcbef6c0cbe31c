"""A bare Git repository's objects and refs, through GitPython. It knows nothing of documents.

Commands run as argv lists with their data on standard input; names never stand where an option could. Objects
come from one persistent ``cat-file --batch``. ``Repo.index`` and the config writers are never used.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import git
from git.exc import GitError

from reconciler.core.errors import NotFound, StoreError

MAIN = "refs/heads/main"
NOTHING = "0" * 40
"""What a ref that isn't there is said to hold."""

_HEX = re.compile(r"[0-9a-f]{40}")
_SETTINGS = [
    "core.fsync=all",
    "fastimport.unpackLimit=1",
    "core.fsyncMethod=fsync",
    "core.quotePath=true",
    "core.filesRefLockTimeout=1000",
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

    def close(self) -> None:
        with self._batch:
            self._git.clear_cache()
            self._repo.close()

    def run(self, command: str, *arguments: str, feed: bytes = b"") -> Answer:
        """One Git command with ``feed`` on its standard input, whatever its status."""
        return run(self._git, command, *arguments, feed=feed)

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

    def _blob(self, blob_id: str, most: int) -> bytes | int:
        _, _, size, stream = self._git.stream_object_data(blob_id)
        if size <= most:
            return stream.read(size)
        while stream.read(1 << 16):
            pass
        return size

    def is_ancestor(self, older: str, newer: str) -> bool:
        return self.run("merge-base", "--is-ancestor", commit_hex(older), commit_hex(newer)).status == 0


def configure(command: git.Git, path: Path) -> None:
    """Makes ``command`` work on the repository at ``path``, whatever the caller's environment names."""
    command.update_environment(GIT_NO_REPLACE_OBJECTS="1", GIT_OPTIONAL_LOCKS="0", GIT_TERMINAL_PROMPT="0")
    command.set_persistent_git_options(git_dir=str(path), c=_SETTINGS)


def run(command: git.Git, name: str, *arguments: str, feed: bytes = b"") -> Answer:
    try:
        process = getattr(command, name.replace("-", "_"))(*arguments, istream=subprocess.PIPE, as_process=True)
        output, errors = process.communicate(feed, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        process.proc.kill()
        process.proc.communicate()
        raise StoreError(f"`git {name}` took longer than {_LONGEST_S} s.") from error
    except (GitError, OSError) as error:
        raise StoreError(f"`git {name}` could not be run: {error}") from error
    return Answer(process.proc.returncode, output, errors.decode(errors="replace").strip())


def commit_hex(revision: str) -> str:
    """``revision`` when it is a full commit id, so that it can stand on a command line."""
    if not _HEX.fullmatch(revision):
        raise NotFound(f"`{revision}` is no full commit id.")
    return revision


def blob_id(content: bytes) -> str:
    """The id that Git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
