"""Which releases a rollback steps through, told by what was declared one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReleaseOrder:
    """``standing``: each was declared in place of the one before it, and the last is declared now.

    ``left``: those that an older one was declared in place of, by a rollback or by a revert: nobody wants them back
    unless they say so.
    """

    standing: tuple[str, ...]
    left: frozenset[str]


def release_order(declared: Iterable[str]) -> ReleaseOrder:
    """The order of what was declared, oldest first; what is declared again after it was left stands again."""
    standing: list[str] = []
    seen: set[str] = set()
    for release in declared:
        seen.add(release)
        if release in standing:
            del standing[standing.index(release) + 1 :]
        else:
            standing.append(release)
    return ReleaseOrder(tuple(standing), frozenset(seen.difference(standing)))
