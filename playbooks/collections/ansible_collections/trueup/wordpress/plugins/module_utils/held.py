# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Asks a copy's own PHP what waits in it, or has it released. Stdlib only: the reconciler brings it to a node."""

from __future__ import annotations

import json
import os

from ansible_collections.trueup.wordpress.plugins.module_utils import fastcgi


def ask(asked):
    """What ``copy.php`` answers, as an object; SystemExit where there is no such answer.

    ``asked``: ``socket user parameters timeout_s`` of PHP.
    """
    # PHP keeps in mind for minutes where a link led, and this one leads elsewhere after a switch.
    root = os.path.realpath(asked["parameters"]["DOCUMENT_ROOT"])
    parameters = {**asked["parameters"], "DOCUMENT_ROOT": root}
    try:
        answer = fastcgi.request(asked["socket"], asked["user"], parameters, asked["timeout_s"])
        return json.loads(answer.body.splitlines()[-1])
    except (OSError, ValueError, LookupError) as error:
        raise SystemExit(f"PHP does not say what waits: {error}") from error
