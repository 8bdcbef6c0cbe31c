"""The inventory for operators: desired state read from its store, whether or not a Trueup process runs.

``inventory/desired_state.py`` is the executable that Ansible calls; what it prints is decided in ``inventory``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from reconciler import artifacts
from reconciler.core.errors import NotFound, StoreError, TrueupError
from reconciler.core.fleet import Document, Fleet, Stalled, assemble, parse
from reconciler.inventory import inventory_of
from reconciler.store import documents
from reconciler.store.repository import Repository


def main(arguments: Sequence[str]) -> int:
    """Print the inventory; on standard error what was left out of it and why. The status is 1 if there is none."""
    if "--host" in arguments:  # `--list` has all variables already
        sys.stdout.write("{}\n")
        return 0
    home = Path(os.environ.get("TRUEUP_HOME") or "/var/lib/trueup")
    key = home / "ssh" / "id_ed25519"
    try:
        fleet = read_fleet(Path(os.environ.get("TRUEUP_STORE") or home / "store.git"))
        archives = artifacts.host_variables(home / "artifacts")
    except TrueupError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    for stalled in fleet.stalled:
        sys.stderr.write(f"Left out: {stalled}\n")
    inventory = inventory_of(fleet, key_file=key if key.exists() else None, artifacts=archives)
    sys.stdout.write(json.dumps(inventory.as_script()) + "\n")
    return 0


def read_fleet(store: Path) -> Fleet:
    """The fleet in a store: a bare repository's ``main``, or the YAML files of a plain directory as they are."""
    if not store.is_dir():
        raise NotFound(f"There is no store at {store}. Set TRUEUP_STORE or TRUEUP_HOME, or run `trueup init`.")
    revision, found = _of_repository(store) if (store / "HEAD").is_file() else _of_directory(store)
    return assemble(revision, [one if isinstance(one, Stalled) else parse(one) for one in found])


def _of_repository(store: Path) -> tuple[str, list[Document | Stalled]]:
    with Repository(store) as repository:
        snapshot = repository.read()
        return snapshot.revision, list(snapshot.documents.values())


def _of_directory(store: Path) -> tuple[str, list[Document | Stalled]]:
    paths = [path.relative_to(store) for path in sorted(store.rglob("*.yaml"))]
    visible = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    try:
        return str(store), [documents.read(path.as_posix(), (store / path).read_bytes()) for path in visible]
    except OSError as error:
        raise StoreError(f"The store {store} cannot be read: {error}. Correct its permissions.") from error
