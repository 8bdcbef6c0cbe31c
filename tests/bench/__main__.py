"""Runs the measurements and prints one table: ``python -m tests.bench [store] [nodes] [operations]``, left out: all."""

from __future__ import annotations

import sys
import time

from tests.bench import measure, nodes, operations, store

PARTS = {"store": store.run, "nodes": nodes.run, "operations": operations.run}


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
