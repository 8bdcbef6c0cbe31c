#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Asks whether one environment on this node serves. Changes nothing."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: health
short_description: Ask whether an environment serves
description:
  - The home page answers 200, C(wp core is-installed) says yes, the database answers the environment's user.
  - Ten seconds each, or what the environment's C(health.timeout_s) says; what fails is tried once more.
  - That an environment is unhealthy is an answer, not a failure.
options:
  id:
    description: The environment's id.
    type: str
    required: true
author: Trueup
"""

EXAMPLES = r"""
- name: Ask whether it serves
  trueup.wordpress.health:
    id: "{{ trueup_environment.id }}"
"""

RETURN = r"""
health: {description: "C(release health reason checks), see C(module_utils/health.py).", type: dict, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils.health import Look


def main():
    module = AnsibleModule({"id": {"type": "str", "required": True}}, supports_check_mode=True)
    try:
        found = Look(module.params["id"]).found()
    except (OSError, ValueError, KeyError) as error:
        module.fail_json(msg=f"The environment could not be looked at: {error!r}")
    module.exit_json(changed=False, health=found)


if __name__ == "__main__":
    main()
