"""Where Trueup's own files are: in the checkout, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path


def share() -> Path:
    """The directory that holds ``playbooks inventory contracts desired-state ansible.cfg``."""
    packaged = Path(__file__).parent / "share"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent


def collection() -> Path:
    """The Ansible collection ``trueup.wordpress``: its ``plugins`` and ``roles``."""
    return share() / "playbooks" / "collections" / "ansible_collections" / "trueup" / "wordpress"
