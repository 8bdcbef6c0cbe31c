# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Has an environment's own PHP, which runs already, keep a one-time login.

Where it does not run, or has no such file yet, a PHP of its own does it in the same sandbox. Only then: what was kept
twice would be good twice.
"""

from __future__ import annotations

import json
import os

from ansible_collections.trueup.wordpress.plugins.module_utils import fastcgi

NOT_RUN = (403, 404)
"""What PHP-FPM answers by itself where it has no such script, or may not read it."""


def keep(asked):
    """What the script printed last, as an object; SystemExit where it failed.

    ``asked``: ``socket user parameters timeout_s`` of PHP; ``argv`` and ``script`` (its standard input) of the other
    way, which this process becomes.
    """
    # As nginx does: PHP keeps in mind for minutes where a link led, and this one leads elsewhere after a switch.
    root = os.path.realpath(asked["parameters"]["DOCUMENT_ROOT"])
    parameters = {**asked["parameters"], "DOCUMENT_ROOT": root}
    try:
        answer = fastcgi.request(asked["socket"], asked["user"], parameters, asked["timeout_s"])
        if answer.status not in NOT_RUN:
            return json.loads(answer.body.splitlines()[-1])
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    except (OSError, ValueError, LookupError) as error:
        raise SystemExit(f"PHP made no login: {error}") from error
    return _become(asked["argv"], asked["script"].encode())


def _become(argv, text):
    handle = os.memfd_create("script", 0)
    with open(handle, "r+b", closefd=False) as file:
        file.write(text)
    os.lseek(handle, 0, os.SEEK_SET)
    os.dup2(handle, 0)
    os.execvp(argv[0], argv)
