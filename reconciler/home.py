"""The control plane's home: everything that a process of it works with, opened from the settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from reconciler.core.errors import Conflict, Invalid
from reconciler.dispatch import Dispatcher
from reconciler.operations.requests import Operations
from reconciler.paths import share
from reconciler.records.database import migrate, open_database
from reconciler.settings import Settings
from reconciler.state import Records, State
from reconciler.store.documents import render, schema_reference
from reconciler.store.remote import NAMES, checked_folder
from reconciler.store.repository import Author, Repository


def clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Home:
    """An opened home. Use it as a context manager."""

    settings: Settings
    state: State
    operations: Operations
    dispatcher: Dispatcher

    @property
    def records(self) -> Records:
        return self.state.records

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open what ``create`` made; migrates the database.

        Raises:
            Invalid: there is no home at that path.
            RecordsError, StoreError: it cannot be opened.
        """
        if not settings.store.is_dir():
            raise Invalid(f"{settings.home} is no Trueup home. Run `trueup init`, or set TRUEUP_HOME.")
        engine = open_database(settings.database)
        migrate(engine)
        state = State(_store(settings), Records(engine))
        dispatcher = Dispatcher(settings.wake_socket)
        return cls(settings, state, Operations(state, dispatcher, clock, uuid4), dispatcher)

    def close(self) -> None:
        self.state.repository.close()
        self.state.records.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create(settings: Settings, author: Author) -> None:
    """Make a home: store, database, key for the nodes. What is there already stays as it is."""
    old = os.umask(0o077)
    try:
        for directory in (settings.home, settings.ssh_key.parent, settings.artifacts, settings.run_directory):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not settings.store.exists():
            Repository.init(settings.store, initial_documents(), author, _folder(settings) or "").close()
        with Repository(settings.store) as repository:
            repository.install_hook(settings.wake_socket)
        if not settings.ssh_key.exists():
            _make_key(settings.ssh_key)
        engine = open_database(settings.database)
        migrate(engine)
        engine.dispose()
    except OSError as error:
        raise Conflict(f"{settings.home} could not be made: {error.strerror}: {error.filename}.") from error
    finally:
        os.umask(old)


def _store(settings: Settings) -> Repository:
    """The store, with its documents where the settings say.

    Raises:
        Conflict: they are elsewhere, and more than `trueup init` has written them.
    """
    folder, repository = _folder(settings), Repository(settings.store)
    if folder is None or folder == repository.folder:
        return repository
    with repository:
        if not repository.move_to(folder):
            raise Conflict(_in_another_folder(settings, repository.folder, folder))
    return Repository(settings.store)


def _in_another_folder(settings: Settings, has: str, wanted: str) -> str:
    store, where = settings.store, f"in its folder {has}" if has else "at its top"
    back = f"Set TRUEUP_UPSTREAM_PATH={has}" if has else "Leave TRUEUP_UPSTREAM_PATH out"
    return (
        f"The documents of {store} are {where}, and the settings say {wanted or 'at the top'}. Nothing was changed. "
        f"{back}. Or, once `trueup upstream status` tells of no commit that waits there: move the documents upstream, "
        f"move {store} away, set the new path and run `trueup init`; the new store takes over what upstream has."
    )


def _folder(settings: Settings) -> str | None:
    """Where the settings say that the documents are; None: they say nothing of it.

    Raises:
        Invalid: it can be no folder.
    """
    if settings.upstream_path is None and settings.upstream is None:
        return None
    return checked_folder(settings.upstream_path, NAMES[2])


def initial_documents() -> Mapping[str, bytes]:
    """A new store: the platform document, the schemas for editors, and what a store is."""
    platform = {"apiVersion": "trueup/v1", "kind": "Platform", "metadata": {}, "spec": {}}
    schemas = {f"schemas/{path.name}": path.read_bytes() for path in _schemas() if path.stem != "error"}
    return {
        "platform.yaml": render(platform, schema_reference("platform.yaml", "Platform")),
        "README.md": (share() / "desired-state" / "README.md").read_bytes(),
        **schemas,
    }


def _schemas() -> list[Path]:
    return sorted((share() / "contracts" / "schemas").glob("*.json"))


def _make_key(path: Path) -> None:
    comment = "trueup control plane"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Conflict(f"The key {path} could not be made: {done.stderr.strip()}")
