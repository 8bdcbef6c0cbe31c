"""Times and how they are shown."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One measurement. ``aim``: what we want of it, in words; ``plain``: the plain way's figure in the same unit."""

    what: str
    value: float
    unit: str
    aim: str = ""
    plain: float | None = None
    plain_is: str = ""

    @property
    def ratio(self) -> str:
        return f"{self.value / self.plain:.2f}×" if self.plain else ""


def seconds(work: Callable[[], object], repeat: int = 1) -> float:
    """The median of ``repeat`` runs."""
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def p95(taken: Sequence[float]) -> float:
    return sorted(taken)[max(0, round(len(taken) * 0.95) - 1)]


def table(lines: Sequence[Line]) -> str:
    rows = [("what", "measured", "plain way", "ratio", "aim", "the plain way is")]
    rows += [
        (
            line.what,
            f"{line.value:.3g} {line.unit}",
            f"{line.plain:.3g} {line.unit}" if line.plain is not None else "",
            line.ratio,
            line.aim,
            line.plain_is,
        )
        for line in lines
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
