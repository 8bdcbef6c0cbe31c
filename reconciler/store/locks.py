"""The writer's own lock, and the lock files that dead Git processes leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from reconciler.core.errors import StoreError

_PATIENCE_S = 30.0
_DEAD_AFTER_S = 3.0
"""No ref update of ours takes as long as this between taking its lock and renaming it."""


@contextlib.contextmanager
def writer_lock(repository: Path) -> Iterator[None]:
    """Holds the store for one writing process; the lock ends with the process that has it.

    Raises:
        StoreError: another process writes for longer than 30 s.
    """
    with contextlib.ExitStack() as turn:
        with contextlib.ExitStack() as queue:
            # Who writes without a pause would win the lock again each time; but first it must queue.
            _lock(queue, repository / "trueup.queue")
            _lock(turn, repository / "trueup.lock")
        yield


def _lock(held: contextlib.ExitStack, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"The lock {path} cannot be opened: {error.strerror}. Nothing was changed.") from error
    held.callback(os.close, descriptor)
    _wait_for(descriptor, path)


def _wait_for(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    pause = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Another process has held {path} for {_PATIENCE_S:.0f} s. Nothing was changed; try again."
                ) from error
            time.sleep(pause)
            pause = min(pause * 2, 0.01)
        else:
            return


def lock_files(repository: Path) -> list[Path]:
    """Git's lock files on refs."""
    single = [repository / name for name in ("packed-refs.lock", "HEAD.lock")]
    return [*filter(Path.exists, single), *(repository / "refs").rglob("*.lock")]


def remove_dead_locks(repository: Path) -> list[Path]:
    """Removes the lock files whose owner is dead, and returns them; to be called under the writer's lock.

    A lock is dead when it is older than any ref update takes and no Git process works on the repository: an
    outside push may hold one at any time.
    """
    removed = []
    for path in lock_files(repository):
        with contextlib.suppress(FileNotFoundError):
            # A clock that was set back makes the file's time lie in the future: that is no fresh lock either.
            if abs(time.time() - path.stat().st_mtime) > _DEAD_AFTER_S and not _git_at_work(repository):
                path.unlink()
                removed.append(path)
    return removed


def remove_dead_keeps(repository: Path) -> None:
    """Removes the marks with which an import that died would keep its pack for ever; under the writer's lock."""
    for path in (repository / "objects" / "pack").glob("pack-*.keep"):
        with contextlib.suppress(FileNotFoundError):
            # The marks of pushes and of people say something else. On a full disk the mark may be empty.
            if path.read_bytes() in {b"fast-import", b""}:
                path.unlink()


def _git_at_work(repository: Path) -> bool:
    return any(_works_on(process, repository) for process in Path("/proc").glob("[0-9]*"))


def _works_on(process: Path, repository: Path) -> bool:
    """Whether the process is a Git that may be changing this repository; in doubt, it is."""
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
        if not Path(os.fsdecode(arguments[0])).name.startswith("git") or b"cat-file" in arguments:
            return False
        directory = (process / "cwd").readlink()
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    named = any(os.fsencode(repository) in argument for argument in arguments)
    return named or directory == repository or repository in directory.parents
