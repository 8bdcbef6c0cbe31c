"""Where Trueup's own files are: in the checkout, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path


def share() -> Path:
    """The directory that holds ``playbooks inventory contracts desired-state ansible.cfg``."""
    packaged = Path(__file__).parent / "share"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent
