#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes down what was applied to a node: the last thing that provisioning does."""

from __future__ import annotations

import datetime
import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils import pending
from ansible_collections.trueup.wordpress.plugins.module_utils.digest import variables_digest
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import core, place, spares
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused

DOCUMENTATION = r"""
module: node_manifest
short_description: Write the node's manifest and end the apply
description:
  - Writes C(/etc/trueup/node.json) unless it says the same already, then removes C(/etc/trueup/node.pending).
  - Has the pool of release trees that it asks for made in the background.
options:
  variables:
    description: The role's variable as it was applied.
    type: dict
    required: true
  files:
    description: Managed files, path to sha256.
    type: dict
    required: true
  services:
    description: Units that must be active and enabled.
    type: list
    elements: str
    required: true
  role_digest:
    description: Set by the action plugin. sha256 over the role's own files.
    type: str
author: Trueup
"""

EXAMPLES = r"""
- name: Write the node's manifest
  trueup.wordpress.node_manifest:
    variables: "{{ trueup_node }}"
    files: {/etc/nginx/nginx.conf: 9f86d081884c7d65}
    services: [nginx.service]
"""

RETURN = r"""
digest: {description: sha256 of the variables' canonical JSON., type: str, returned: always}
"""

MANIFEST = "/etc/trueup/node.json"


def former():
    """The manifest that is there; empty when there is none that can be read."""
    try:
        with open(MANIFEST, encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(manifest):
    draft = f"{MANIFEST}.new"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.chmod(draft, 0o644)
    os.rename(draft, MANIFEST)


def manifest_of(params):
    variables = {key: value for key, value in params["variables"].items() if key != "job"}
    return {
        "format": 1,
        "variables": variables,
        "digest": variables_digest(variables),
        "role_digest": params["role_digest"],
        "files": params["files"],
        "attributes": place.all_attributes(params["files"]),
        "links": {},
        "services": params["services"],
        "releases": [],
        "contents": [],
    }


def applied_by(job):
    if not job:
        return {"job": None, "fence": None, "operator": os.environ.get("SUDO_USER") or "root"}
    return {"job": job["id"], "fence": int(job["fence"]), "operator": None}


def end(manifest, changed, job):
    """The manifest first: a crash in between only makes the next run reload what need not be."""
    with Fence("node", job):
        if changed:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            write({**manifest, "applied_at": now, "applied_by": applied_by(job)})
        pending.end()
    spares.fill(core.STORE)


def main():
    options = {
        "variables": {"type": "dict", "required": True},
        "files": {"type": "dict", "required": True},
        "services": {"type": "list", "elements": "str", "required": True},
        "role_digest": {"type": "str"},
    }
    module = AnsibleModule(options, supports_check_mode=True)
    manifest = manifest_of(module.params)
    before = former()
    changed = any(before.get(key) != value for key, value in manifest.items())
    try:
        if not module.check_mode:
            end(manifest, changed, module.params["variables"].get("job"))
    except Refused as error:
        module.fail_json(msg=str(error), **error.facts)
    module.exit_json(changed=changed, digest=manifest["digest"])


if __name__ == "__main__":
    main()
