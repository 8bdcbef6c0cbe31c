# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Room on the node's disks, asked for before it is taken."""

from __future__ import annotations

import os
import shutil


def lacking(wanted, spare):
    """``(needed, free)`` in bytes of the first disk that has too little room; None where all have enough.

    ``wanted``: bytes by directory; what lies on the same disk is added up. ``spare``: bytes that stay free on each.
    """
    devices = {path: os.stat(path).st_dev for path in wanted}
    for path in wanted:
        needed = sum(size for one, size in wanted.items() if devices[one] == devices[path]) + spare
        free = shutil.disk_usage(path).free
        if free < needed:
            return needed, free
    return None
