"""Where runs keep the archives of modules that Ansible makes for a node, so that a later run need not make them again.

Ansible looks for them by a module's name alone. So there is one directory for each state of all that goes into them:
``playbooks/``, Ansible, Python. Who changed any of it gets another directory, and no archive is ever an older one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

KEPT_S = 86_400
"""No run takes longer: what nobody used since then is nobody's."""


def directory_for(top: Path, playbooks: Path, ansible: str) -> Path:
    """The directory below ``top`` for the present state; made if it is not there. ``ansible``: what tells its state."""
    found = top / digest(playbooks, ansible)
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.utime(found)
    return found


def digest(playbooks: Path, ansible: str) -> str:
    """Of every file's name and content; of the boot, too: a file that a crash cut short is never read."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    whole = hashlib.sha256(f"{boot}{sys.version}{ansible}".encode())
    for path in sorted(_files(playbooks)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(playbooks)}\0{content}\n".encode())
    return whole.hexdigest()


def prune(top: Path) -> None:
    """Remove what no run can be using."""
    for found in top.glob("*"):
        if found.stat().st_mtime < time.time() - KEPT_S:
            shutil.rmtree(found, ignore_errors=True)


def _files(top: Path) -> list[Path]:
    found = []
    for directory, folders, names in os.walk(top, followlinks=True):
        folders[:] = [folder for folder in folders if folder != "__pycache__"]
        found += [Path(directory, name) for name in names]
    return found
