"""A person's clone, or a plain directory of documents, read by the same code as the store.

Git says what would be committed, and the store's reader reads that tree: so ``.yml``, symbolic links and whatever else
lies under ``nodes/`` and ``sites/`` mean here what they will mean there. Nothing is written into the clone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from reconciler.core.errors import NotFound, StoreError
from reconciler.store.objects import Objects
from reconciler.store.snapshot import Reader, Snapshot

_LONGEST_S = 120


class Trees:
    """Trees of the documents in ``directory``, which may be the top of a clone, a part of it, or no clone at all.

    Raises:
        NotFound: there is no such directory.
        StoreError: Git cannot work with it.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise NotFound(f"There is no directory {directory}. Name the one that has platform.yaml, nodes and sites.")
        self._directory = directory.resolve()
        self._scratch = Path(tempfile.mkdtemp(prefix="trueup-trees-"))
        try:
            _git(self._directory, {}, "init", "--bare", "--quiet", "--template=", str(self._scratch))
            self._clone = self._found_clone()
            objects = self._scratch / "objects"
            if self._clone:
                (objects / "info").mkdir(exist_ok=True)
                (objects / "info" / "alternates").write_text(f"{self._clone.objects}\n")
            self._objects = Objects(self._scratch)
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        self._reader = Reader(self._objects)

    def close(self) -> None:
        self._objects.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_clone(self) -> bool:
        return self._clone is not None

    def commit(self, revision: str) -> str:
        """The full id of the commit that ``revision`` names.

        Raises:
            NotFound: it names none here.
        """
        try:
            return self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except StoreError as error:
            raise NotFound(
                f"`{revision}` names no commit in {self._directory}. Fetch it first, whole: `git fetch --unshallow`, "
                "or `fetch-depth: 0` where a CI checks out."
            ) from error

    def read(self, tree: str) -> Snapshot:
        """The documents of a commit or tree; paths are from the directory on."""
        prefix = self._clone.prefix.rstrip("/") if self._clone else ""
        if prefix:
            try:
                tree = self._ask("rev-parse", "--verify", "--quiet", f"{tree}:{prefix}")
            except StoreError:
                tree = self._ask("mktree", feed=b"")
        return self._reader.at(tree)

    def of_files(self) -> str:
        """The tree that committing all that lies there now would give; what Git ignores isn't in it."""
        index = self._scratch / "files.index"
        if self._clone and self._clone.index.is_file():
            shutil.copy2(self._clone.index, index)
        part = (self._clone.prefix if self._clone else "") or "."
        self._ask("add", "--all", "--", part, ":(exclude,glob)**/.*/**", index=index)
        return self._ask("write-tree", index=index)

    def of_index(self) -> str:
        """The tree that `git commit` would make now.

        Raises:
            StoreError: the directory is no clone, or a merge is not finished.
        """
        if not self._clone:
            raise StoreError(f"{self._directory} is no clone, so nothing is staged there.")
        return self._ask("write-tree", index=self._clone.index)

    def merged(self, base: str, head: str) -> str:
        """The tree that merging ``head`` into ``base`` gives; both are commits.

        Raises:
            StoreError: they conflict, or have no history in common here.
        """
        if self._is_ancestor(base, head):
            return head
        done = self._run("merge-tree", "--write-tree", "--no-messages", "--name-only", base, head)
        if done.returncode == 1:
            names = ", ".join(done.stdout.decode(errors="replace").split("\n")[1:]).strip(", ")
            raise StoreError(f"The two conflict in {names}. Merge the base into the branch, then plan again.")
        if done.returncode:
            raise StoreError(
                f"What merging would give cannot be told: {_said(done)} Fetch the whole history (`fetch-depth: 0`)."
            )
        return done.stdout.split(b"\n")[0].decode()

    def as_commit(self, tree: str, parent: str) -> str:
        """A commit of ``tree`` upon ``parent``, that only this object knows."""
        who = {f"GIT_{role}_{part}": "trueup" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        return self._ask("commit-tree", tree, "-p", parent, "-m", "What lies in the directory", environment=who)

    def _is_ancestor(self, base: str, head: str) -> bool:
        return self._run("merge-base", "--is-ancestor", base, head).returncode == 0

    def _found_clone(self) -> _Clone | None:
        """Where the clone is that the directory is in; None: it is in none."""
        names = ("--show-prefix", "--git-path", "objects", "--git-path", "index", "--show-toplevel")
        done = _run(self._directory, {}, "rev-parse", *names)
        if done.returncode:
            if "not a git repository" in _said(done):
                return None
            raise StoreError(f"Git cannot work in {self._directory}: {_said(done)}")
        prefix, objects, index, top = done.stdout.decode(errors="surrogateescape").split("\n")[:4]
        return _Clone(prefix, self._directory / objects, self._directory / index, Path(top))

    def _ask(
        self,
        *arguments: str,
        index: Path | None = None,
        feed: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        done = self._run(*arguments, index=index, feed=feed, environment=environment)
        if done.returncode:
            raise StoreError(f"`git {arguments[0]}` failed in {self._directory}: {_said(done)}")
        return done.stdout.decode(errors="replace").strip()

    def _run(
        self,
        *arguments: str,
        index: Path | None = None,
        feed: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        variables = {"GIT_OBJECT_DIRECTORY": str(self._scratch / "objects"), **(environment or {})}
        if index:
            variables["GIT_INDEX_FILE"] = str(index)
        where = self._directory
        if self._clone:
            where = self._clone.top
            variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(self._clone.objects)
        else:
            variables |= {"GIT_DIR": str(self._scratch), "GIT_WORK_TREE": str(self._directory)}
        return _run(where, variables, *arguments, feed=feed)


class _Clone:
    def __init__(self, prefix: str, objects: Path, index: Path, top: Path) -> None:
        self.prefix, self.objects, self.index, self.top = prefix, objects, index, top


def _git(where: Path, variables: Mapping[str, str], *arguments: str) -> None:
    done = _run(where, variables, *arguments)
    if done.returncode:
        raise StoreError(f"`git {arguments[0]}` failed: {_said(done)}")


def _run(
    where: Path, variables: Mapping[str, str], *arguments: str, feed: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    # Inside a hook Git says which repository is meant; here the directory says it. Which index, Git knows better.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    settings = ["-c", "core.quotePath=false", "-c", "core.looseCompression=0", "-c", "core.fsync=none"]
    try:
        return subprocess.run(
            ["git", *settings, *arguments],
            cwd=where,
            env={**ours, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", **variables},
            input=feed,
            stdin=subprocess.DEVNULL if feed is None else None,
            capture_output=True,
            check=False,
            timeout=_LONGEST_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"`git {arguments[0]}` could not be run: {error}") from error


_KEPT = frozenset(
    {"GIT_CEILING_DIRECTORIES", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_EXEC_PATH", "GIT_INDEX_FILE"}
)


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return " ".join(done.stderr.decode(errors="replace").split())[-500:]
