"""The inventory for operators: desired state read from its store, whether or not a Trueup process runs.

``inventory/desired_state.py`` is the executable that Ansible calls; what it prints is decided in ``inventory``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from reconciler.artifacts import pins
from reconciler.core.errors import NotFound, TrueupError
from reconciler.core.visible import visible
from reconciler.inventory import inventory_of
from reconciler.reading import read_fleet


def main(arguments: Sequence[str]) -> int:
    """Print the inventory; on standard error what was left out of it and why. The status is 1 if there is none."""
    if "--host" in arguments:  # `--list` has all variables already
        sys.stdout.write("{}\n")
        return 0
    home = Path(os.environ.get("TRUEUP_HOME") or "/var/lib/trueup")
    key = home / "ssh" / "id_ed25519"
    try:
        fleet = read_fleet(Path(os.environ.get("TRUEUP_STORE") or home / "store.git"))
        archives = pins.host_variables(home / "artifacts")
    except NotFound as error:
        sys.stderr.write(f"{visible(error.message)} Set TRUEUP_STORE or TRUEUP_HOME, or run `trueup init`.\n")
        return 1
    except TrueupError as error:
        sys.stderr.write(f"{visible(error.message)}\n")
        return 1
    for stalled in fleet.stalled:
        sys.stderr.write(f"Left out: {visible(str(stalled))}\n")
    inventory = inventory_of(fleet, key_file=key if key.exists() else None, artifacts=archives)
    sys.stdout.write(json.dumps(inventory.as_script()) + "\n")
    return 0
