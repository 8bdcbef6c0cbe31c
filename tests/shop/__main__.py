"""``make shop``: the shop's orders during everything that Trueup does; a table, and last one line of JSON.

``python -m tests.shop cases`` lists the cases that are kept as data (`table.py`), by kind and with counts.
"""

import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.lab.doctor import problems
from tests.lab.image import ensure_image
from tests.lab.stand import build
from tests.shop.listener import listening
from tests.shop.table import listed
from tests.shop.trial import Trial

LEAST = 360
"""Orders during each operation: five thousand in all, with as many operations as there are."""


def main() -> int:
    if found := problems():
        print("The shop is on servers of its own, and this machine lacks what that takes:", *found, sep="\n  ")
        return 1
    ensure_image()
    only = os.environ.get("SHOP_ONLY")
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-", dir="/tmp")))
        stand = build(top, stack)
        listener = stack.enter_context(listening(stand.place.nodes["web-1"].network.gateway))
        trial = Trial(stand, listener, int(os.environ.get("SHOP_LEAST", LEAST)))
        began = time.monotonic()
        print("A shop, its first orders, and two copies of it …", flush=True)
        trial.prepare()
        ended_well = True
        for name, operation in trial.operations():
            if only and only not in name:
                continue
            print(f"[{time.monotonic() - began:4.0f} s] {name} …", flush=True)
            try:
                row = trial.run(name, operation)
            except AssertionError as error:
                print(f"  It did not go as it should: {error}")
                ended_well = False
                break
            if row.lost or row.twice:
                print(f"  {row.lost} of {row.acknowledged} orders are lost, {row.twice} numbers were given twice")
        live_with_copies(trial)
    return tell(trial) if ended_well else max(1, tell(trial))


def live_with_copies(trial: Trial) -> None:
    """The copies are visited, and their clocks go."""
    for copy in (trial.staging, trial.copy):
        node = trial.stand.place.node_of(copy)
        for _ in range(3):
            trial.page(copy)
        node.ssh(["systemctl", "start", f"trueup-cron@{copy['id']}.service"], check=False)


def tell(trial: Trial) -> int:
    print(f"\n  {'operation':<24} {'times':>5} {'seconds':>8} {'orders':>7} {'lost':>5} {'twice':>6}")
    for row in trial.rows:
        print(f"  {row.name:<24} {row.times:>5} {row.seconds:8.1f} {row.acknowledged:>7} {row.lost:>5} {row.twice:>6}")
    calls, mails = trial.listener.calls, trial.listener.mails
    print(f"\n  production called {calls['production']} times and sent {mails['production']} mails")
    total = {
        "acknowledged": sum(row.acknowledged for row in trial.rows),
        "lost": max((row.lost for row in trial.rows), default=0),
        "twice": max((row.twice for row in trial.rows), default=0),
        "calls": sum(count for who, count in calls.items() if who != "production"),
        "mails": sum(count for who, count in mails.items() if who != "production"),
    }
    print(json.dumps(total))
    return 1 if any(total[name] for name in ("lost", "twice", "calls", "mails")) else 0


def list_cases() -> int:
    print(*listed(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(list_cases() if sys.argv[1:] == ["cases"] else main())
