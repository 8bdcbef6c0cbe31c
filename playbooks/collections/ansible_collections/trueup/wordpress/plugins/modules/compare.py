#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Tells what a copy and its target made of what they once had in common; changes neither."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: compare
short_description: Compare an environment with the one that it is promoted to
description:
  - Rows of the write set and files of the code by the three-way rule; rows of protected tables as counts.
  - Nothing of either is changed. What both have the same is noted as what they have in common from now on.
options:
  source: {description: Id of the environment that changes come from., type: str, required: true}
  target: {description: Id of the environment that they go to., type: str, required: true}
  preset: {description: What is protected., type: str, choices: [content-protect, commerce-protect]}
author: Trueup
"""

EXAMPLES = r"""
- name: Compare
  trueup.wordpress.compare:
    source: 5b0f6a3e-8f6e-4d0b-9d53-0a6f0c1d2e3f
    target: 1c9d1d0a-2f7b-4bb0-8f3c-7d2e4f5a6b7c
"""

RETURN = r"""
written: {description: By table counts and first keys of what moves or stays or not., type: dict, returned: success}
code: {description: The same of files., type: dict, returned: success}
held: {description: Options that stay as what they name is not the same on both sides., type: list, returned: success}
paired: {description: "Rows whose other half cannot move: table, key, why.", type: list, returned: success}
made: {description: Tables that come along with a plugin that becomes active., type: list, returned: success}
protected: {description: By table how many rows each side changed., type: dict, returned: success}
preview: {description: "What moves, stays or is left, by name, and why.", type: dict, returned: success}
only_in_source: {description: "Tables, views, triggers, routines that the target lacks.", type: list, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, Run
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.presets import PRESETS
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.preview import preview
from ansible_collections.trueup.wordpress.plugins.module_utils.promotion.sides import Sides

NAMED = 50


def told(comparison):
    """Counts of all, and the names of the first."""
    return {"counts": comparison.counts(), **{name: keys[:NAMED] for name, keys in vars(comparison).items()}}


def main():
    options = {
        "source": {"type": "str", "required": True},
        "target": {"type": "str", "required": True},
        "preset": {"type": "str", "choices": list(PRESETS)},
    }
    module = AnsibleModule(options, supports_check_mode=True)
    run = Run(True, "/nonexistent", None)
    try:
        sides = Sides(run, module.params["source"], module.params["target"], module.params["preset"])
        written, code, protected = sides.written(), sides.code(), sides.protected()
        result = {
            "written": {table: told(one) for table, one in written.items() if any(one.counts().values())},
            "code": told(code),
            "held": sides.held[:NAMED],
            "paired": [one._asdict() for one in sides.paired[:NAMED]],
            "made": sides.made[:NAMED],
            "protected": protected.counts(),
            "preview": preview(sides, written, code, protected),
            "only_in_source": sides.only_in_source()[:NAMED],
        }
        if not module.check_mode:
            sides.advance()
    except Failure as error:
        module.fail_json(msg=str(error), **error.facts)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
