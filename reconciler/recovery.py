"""A new home from what outlived the old one: the repository that it followed, its secrets, its key to the nodes."""

from __future__ import annotations

import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from reconciler.core.errors import Conflict, Invalid
from reconciler.home import create
from reconciler.settings import Settings
from reconciler.storage.secret_store import Secrets
from reconciler.store.remote import Remote
from reconciler.store.repository import Author, Repository

KEY, SEALED = "key", ".age"
_LARGEST = 1 << 20
_MOST_FILES = 1000


@dataclass(frozen=True)
class Survivors:
    """What there is to begin with. ``secrets`` is a former home's directory of them, or an archive of it."""

    remote: Remote
    secrets_key: Path | None = None
    secrets: Path | None = None
    ssh_key: Path | None = None


def recover(settings: Settings, survivors: Survivors, author: Author) -> None:
    """Make a home of what is given: all of it, or, where that cannot be done, nothing.

    Raises:
        Conflict: something is in the home already, or it cannot be written.
        Invalid: a key or a secret is not what it should be.
        NotFound, UpstreamUnreachable: the repository cannot be had.
    """
    home = settings.home
    if found := _occupants(home):
        names = ", ".join(path.name for path in found[:5])
        raise Conflict(
            f"{home} is in use: {names}. Nothing was changed. Choose another TRUEUP_HOME, or move them away."
        )
    secrets, ssh_key = _secrets(survivors), _ssh_key(survivors.ssh_key)
    was_there, old = home.exists(), os.umask(0o077)
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if secrets is not None:
            Secrets(settings.secrets).take_back(*secrets)
        if ssh_key is not None:
            _keep(settings.ssh_key, *ssh_key)
        # Last but for what can be made again: a directory is a home when it has a store.
        Repository.clone(settings.store, survivors.remote).close()
        create(settings, author)
    except BaseException as error:
        _clear(home, was_there)
        if isinstance(error, OSError):
            raise Conflict(f"{home} could not be made: {error.strerror}: {error.filename}.") from error
        raise
    finally:
        os.umask(old)


def _occupants(home: Path) -> list[Path]:
    """What is in the home but for hidden files: the key to the forge and Git's own settings come before it."""
    if home.exists() and not home.is_dir():
        raise Conflict(f"{home} is no directory. Choose another TRUEUP_HOME.")
    found = home.iterdir() if home.exists() else ()
    return sorted(path for path in found if not path.name.startswith(".") and path.name != "lost+found")


def _clear(home: Path, was_there: bool) -> None:
    if not was_there:
        shutil.rmtree(home, ignore_errors=True)
        return
    for path in _occupants(home):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _secrets(survivors: Survivors) -> tuple[str, dict[str, bytes]] | None:
    """The key and what it opens; None: neither was given."""
    files = dict(_files(survivors.secrets)) if survivors.secrets else {}
    key = _read(survivors.secrets_key, "--secrets-key") if survivors.secrets_key else files.get(KEY)
    sealed = {name.removesuffix(SEALED): content for name, content in files.items() if name.endswith(SEALED)}
    if survivors.secrets and not sealed:
        raise Invalid(f"--secrets: {survivors.secrets} has no secrets, which are files that end in {SEALED}.")
    if key is None and sealed:
        raise Invalid("--secrets: their key is missing. Give it by --secrets-key.")
    return None if key is None else (key.decode("ascii", "replace"), sealed)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The key and the secrets in a directory or an archive, by name."""
    if path.is_dir():
        for one in sorted(path.iterdir()):
            if _is_ours(one.name):
                yield one.name, _read(one, "--secrets")
        return
    try:
        with tarfile.open(path) as archive:
            for number, member in enumerate(archive):
                name = member.name.rpartition("/")[2]
                content = archive.extractfile(member) if member.isfile() and _is_ours(name) else None
                if number > _MOST_FILES or (content and member.size > _LARGEST):
                    raise Invalid(
                        f"--secrets: {path} is larger than secrets are. Give what `trueup secret export` wrote."
                    )
                if content:
                    yield name, content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise Invalid(f"--secrets: {path} is neither a directory nor an archive that can be read.") from error


def _is_ours(name: str) -> bool:
    return name == KEY or name.endswith(SEALED)


def _ssh_key(path: Path | None) -> tuple[bytes, bytes] | None:
    """The private and the public part of the key that was given."""
    if path is None:
        return None
    private = _read(path, "--ssh-key")
    try:
        return private, asyncssh.import_private_key(private).export_public_key()
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise Invalid(f"--ssh-key: {path} is no private key that can be used without a passphrase: {error}.") from error


def _keep(path: Path, private: bytes, public: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(private)
    path.with_suffix(".pub").write_bytes(public)


def _read(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise Invalid(f"{option}: {path} cannot be read: {error.strerror}.") from error
