# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The controller's archive of a WordPress version, checked before it is sent anywhere. Stdlib only."""

from __future__ import annotations

import hashlib


def checked(artifacts, version):
    """``path`` and ``sha256`` of the archive of ``version`` among ``trueup_artifacts``.

    Raises:
        LookupError: it isn't among them.
        ValueError: it is not what its pin says.
    """
    archive = artifacts.get("wordpress", {}).get(version)
    if not archive:
        raise LookupError(
            f"WordPress {version} is neither on the node nor among trueup_artifacts. "
            "Fetch it on the control plane (`trueup fetch`), or choose a version that is there."
        )
    with open(archive["path"], "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive["sha256"]:
        raise ValueError(
            f"{archive['path']} has sha256 {found}, but its pin says {archive['sha256']}. "
            "Delete it and let it be fetched again."
        )
    return archive
