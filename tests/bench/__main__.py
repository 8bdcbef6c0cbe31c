"""Runs the measurements and prints one table: ``python -m tests.bench [PART …]``, left out: all of ``PARTS``."""

from __future__ import annotations

import sys
import time

from tests.bench import ansible, creation, measure, nodes, operations, pushes, reports, reviews, store

PARTS = {
    "store": store.run,
    "reports": reports.run,
    "reviews": reviews.run,
    "pushes": pushes.run,
    "ansible": ansible.run,
    "creation": creation.run,
    "nodes": nodes.run,
    "operations": operations.run,
}


def main() -> int:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", file=sys.stderr, flush=True)

    wanted = sys.argv[1:] or list(PARTS)
    lines = [line for part in wanted for line in PARTS[part](say)]
    print(measure.table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
