#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Looks for a text in one environment's tables, and says what a replacement would change. Changes nothing."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: search_replace
short_description: Say what replacing a text in an environment's tables would change
description:
  - Reads the tables as a replacement does, counts the values that would change, and shows some. Changes nothing.
  - What replaces is module M(trueup.wordpress.environment), where a document's C(spec.content) says so.
options:
  variables:
    description: The environment's variable, C(trueup_environment).
    type: dict
    required: true
  search:
    description: The text to look for, 2 to 1000 characters; letter for letter, upper and lower case apart.
    type: str
    required: true
  replace:
    description: What would stand in its place; may be empty.
    type: str
    required: true
  tables:
    description: Names of tables, with or without C(wp_). Without O(tables) and O(groups), all.
    type: list
    elements: str
  groups:
    description: Groups of tables.
    type: list
    elements: str
    choices: [content, comments, users, settings, commerce]
  guid:
    description: Whether the column C(guid), by which feed readers know a post, is one of those that change.
    type: bool
    default: false
author: Trueup
"""

EXAMPLES = r"""
- name: Say what would change
  trueup.wordpress.search_replace:
    variables: "{{ trueup_environment }}"
    search: Acme Ltd
    replace: Acme plc
    groups: [content, settings]
"""

RETURN = r"""
replaced:
  description:
    - C(count), how many values would change; C(tables), for each C(table) its C(count) and C(examples), each with
      C(column), C(before) and C(after); C(left), what stays as it is, by C(table), C(column) and C(reason), with its
      C(count) and an C(example); C(left_more), how many more stay.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils.content import replace
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure


def main():
    options = {
        "variables": {"type": "dict", "required": True},
        "search": {"type": "str", "required": True},
        "replace": {"type": "str", "required": True},
        "tables": {"type": "list", "elements": "str"},
        "groups": {"type": "list", "elements": "str", "choices": sorted(replace.GROUPS)},
        "guid": {"type": "bool", "default": False},
    }
    module = AnsibleModule(options, supports_check_mode=True)
    try:
        layout = Layout(module.params["variables"]["id"])
        found = replace.look(layout.database, replace.Request.of(module.params))
    except Failure as error:
        module.fail_json(msg=str(error), **error.facts)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    module.exit_json(changed=False, replaced=found.told())


if __name__ == "__main__":
    main()
