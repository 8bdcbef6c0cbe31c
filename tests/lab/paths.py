"""Where the lab keeps things, and the one error that it raises.

The cache (images, snapshots) can be deleted whenever no node runs. The state directory holds what is alive now.
"""

import os
from pathlib import Path


class LabError(Exception):
    """The lab cannot do what was asked: the message says what is wrong and what to do."""


def cache_directory() -> Path:
    return Path(os.environ.get("TRUEUP_CACHE", "/var/cache/trueup")) / "lab"


def state_directory() -> Path:
    return Path(os.environ.get("TRUEUP_LAB_STATE", "/var/lib/trueup-lab"))
