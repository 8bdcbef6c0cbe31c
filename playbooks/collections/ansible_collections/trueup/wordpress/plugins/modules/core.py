#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the pristine tree of a WordPress version on this node, so that its first site needn't wait for it."""

from __future__ import annotations

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core, store
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Beside, Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused

DOCUMENTATION = r"""
module: core
short_description: Keep a WordPress version ready on the node
description:
  - The pristine tree of a version is unpacked beside those that are there, and appears whole or not at all.
options:
  version:
    description: The WordPress version.
    type: str
    required: true
  artifacts:
    description: For the action plugin. Archives on the controller.
    type: dict
  archive:
    description: Set by the action plugin when the module wanted it. C(path) on the node and C(sha256).
    type: dict
  job:
    description: Who runs; see C(module_utils/fence.py).
    type: dict
author: Trueup
"""

EXAMPLES = r"""
- name: Keep the WordPress of new sites ready
  trueup.wordpress.core:
    version: 7.1.1
    artifacts: "{{ trueup_artifacts }}"
"""

RETURN = r"""
wanted: {description: The version whose archive has to be sent first., type: str, returned: when missing}
"""

PENDING = "/etc/trueup/node.pending"


def main():
    options = {
        "version": {"type": "str", "required": True},
        "artifacts": {"type": "dict"},
        "archive": {"type": "dict"},
        "job": {"type": "dict"},
    }
    module = AnsibleModule(options, supports_check_mode=True)  # in check mode no archive is ever sent
    os.umask(0o022)
    version, archive = module.params["version"], module.params["archive"]
    found = core.condition(version)
    if found == store.WHOLE:
        module.exit_json(changed=False)
    if found == store.DAMAGED and not archive:
        module.exit_json(changed=False, wanted=version)
    # The tree appears whole, and nothing that runs knows of it: a mark would have the node provisioned, and all that
    # serves on it restarted.
    run = Beside(module.check_mode, PENDING, module.params["job"])
    try:
        with contextlib.nullcontext() if module.check_mode else Fence("node", module.params["job"]) as fence:
            run.inherited = (fence.handle,) if fence else ()
            if not core.is_ready(run, version):
                core.unpack(run, version, archive)
    except (Failure, Refused) as error:
        module.fail_json(msg=str(error), **error.facts)
    except OSError as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    module.exit_json(changed=run.changed)


if __name__ == "__main__":
    main()
