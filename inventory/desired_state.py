#!/usr/bin/env python3
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible inventory from desired state: ``ansible-inventory -i inventory --list``. Needs no running Trueup.

The store is what TRUEUP_STORE names (a bare repository, or a directory of YAML), else TRUEUP_HOME/store.git.
Archives and the ssh key come from TRUEUP_HOME (default /var/lib/trueup) where it has them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve()
TOP = SCRIPT.parents[1]
ALREADY = "TRUEUP_INVENTORY_INTERPRETER"

sys.path.insert(0, str(TOP))
try:
    from reconciler.inventory_script import main
except ImportError as error:
    # `env python3` is not the interpreter of an environment that isn't active. A checkout has its own in .venv;
    # inside of a wheel's, this is lib/python3.X/site-packages/reconciler/share/inventory/desired_state.py.
    for python in (directory / "bin" / "python3" for directory in (TOP / ".venv", *SCRIPT.parents[6:7])):
        if python.exists() and ALREADY not in os.environ:
            os.environ[ALREADY] = str(python)
            os.execv(python, [str(python), str(SCRIPT), *sys.argv[1:]])  # noqa: S606
    sys.exit(f"{sys.executable} cannot import Trueup ({error}). Activate the environment that has it.")

sys.exit(main(sys.argv[1:]))
