#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Empties the caches of one environment on this node, and nobody else's."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: purge
short_description: Empty one environment's caches
description:
  - Removes the pages that nginx kept of it and the objects that WordPress keeps in Redis under its prefix.
options:
  variables:
    description: The environment's variable, C(trueup_environment).
    type: dict
    required: true
author: Trueup
"""

EXAMPLES = r"""
- name: Empty the caches
  trueup.wordpress.purge:
    variables: "{{ trueup_environment }}"
"""

RETURN = r"""
pages: {description: How many pages nginx kept., type: int, returned: success}
objects: {description: How many objects Redis held., type: int, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import caches
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused


def purge(layout, check_mode):
    if check_mode:
        return caches.count(layout.cache), caches.count_objects(layout)
    return caches.empty(layout.cache), caches.forget(layout)


def main():
    module = AnsibleModule({"variables": {"type": "dict", "required": True}}, supports_check_mode=True)
    variables = module.params["variables"]
    try:
        layout = Layout(variables["id"])
        if module.check_mode:
            pages, objects = purge(layout, check_mode=True)
        else:
            with Fence(layout.id, variables.get("job")):
                pages, objects = purge(layout, check_mode=False)
    except Refused as error:
        module.fail_json(msg=str(error), **error.facts)
    except (caches.RedisError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(pages or objects), pages=pages, objects=objects)


if __name__ == "__main__":
    main()
