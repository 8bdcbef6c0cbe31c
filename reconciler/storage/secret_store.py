"""Secrets of the control plane, each encrypted with age under a key of the home's own. Never on a node or in Git."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pyrage

from reconciler.core.errors import Invalid, NotFound

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Secrets:
    """Named secrets in a directory: ``key`` opens ``<name>.age``. A value is a flat mapping of texts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, name: str, value: dict[str, str]) -> None:
        """Keep a secret, in place of an earlier one of that name."""
        path = self._path(name)
        recipient = self._identity(make=True).to_public()
        draft = path.with_suffix(".new")
        draft.write_bytes(pyrage.encrypt(json.dumps(value).encode(), [recipient]))
        draft.chmod(0o600)
        draft.replace(path)

    def get(self, name: str) -> dict[str, str]:
        """The secret's value.

        Raises:
            NotFound: there is none of that name.
            Invalid: it was encrypted under another key.
        """
        path = self._path(name)
        if not path.exists():
            raise NotFound(f"There is no secret {name}. Set it: `trueup secret set {name}`.")
        try:
            value = json.loads(pyrage.decrypt(path.read_bytes(), [self._identity(make=False)]))
        except (pyrage.DecryptError, ValueError) as error:
            raise Invalid(
                f"The key in {self._directory} does not open secret {name}. Put the right key back."
            ) from error
        return {str(key): str(text) for key, text in value.items()}

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._directory.glob("*.age"))

    def remove(self, name: str) -> None:
        try:
            self._path(name).unlink()
        except FileNotFoundError as error:
            raise NotFound(f"There is no secret {name}.") from error

    def key(self) -> str:
        """The key that opens all of them; made where there is none yet."""
        return str(self._identity(make=True))

    def sealed(self) -> dict[str, bytes]:
        """Each secret as it is kept: nobody reads it without the key."""
        return {name: self._path(name).read_bytes() for name in self.names()}

    def take_back(self, key: str, sealed: Mapping[str, bytes]) -> None:
        """Keep a former home's key and secrets, all of them or, where the key does not open one, none.

        Raises:
            Invalid: it is no key, or not the one of a secret.
        """
        try:
            identity = pyrage.x25519.Identity.from_str(key.strip())
        except pyrage.IdentityError as error:
            raise Invalid("The key of the secrets is no age key: it begins with AGE-SECRET-KEY-1.") from error
        for name, content in sealed.items():
            try:
                pyrage.decrypt(content, [identity])
            except pyrage.DecryptError as error:
                raise Invalid(f"The key does not open secret {name}. Give the key that it was kept with.") from error
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = {self._directory / "key": f"{identity}\n".encode()}
        for path, content in (files | {self._path(name): content for name, content in sealed.items()}).items():
            path.touch(mode=0o600)
            path.write_bytes(content)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Invalid(f"`{name}` is no name for a secret. Use lower-case letters, digits and inner hyphens.")
        return self._directory / f"{name}.age"

    def _identity(self, *, make: bool) -> pyrage.x25519.Identity:
        path = self._directory / "key"
        if make and not path.exists():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(f"{pyrage.x25519.Identity.generate()}\n")
        try:
            return pyrage.x25519.Identity.from_str(path.read_text().strip())
        except (FileNotFoundError, pyrage.IdentityError) as error:
            raise Invalid(f"{path} is no age key. Put it back, or set the secrets anew.") from error
