#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Looks at a node before it is provisioned."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils import pending
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused

ENVIRONMENTS = "/etc/trueup/environments"

DOCUMENTATION = r"""
module: node_begin
short_description: Look at a node before an apply
description:
  - Answers in one execution all that the role's templates depend on.
  - Tells of C(/etc/trueup/node.pending) that an earlier run may have replaced files without reloading what reads them.
  - Refuses a job whose fence is lower than the last one seen, and any job while an operator holds the node.
options:
  packages:
    description: Packages that must be installed.
    type: list
    elements: str
    required: true
  job:
    description: Who runs this, C(id) and C(fence); left out by hand.
    type: dict
author: Trueup
"""

EXAMPLES = r"""
- name: Look at the node
  trueup.wordpress.node_begin:
    packages: [nginx]
  register: node_found
"""

RETURN = r"""
missing: {description: Packages that are not installed., type: list, returned: always}
distribution: {description: Such as C(debian 12)., type: str, returned: always}
php: {description: The newest PHP that has an FPM., type: str, returned: always}
memory_mb: {description: RAM in MiB., type: int, returned: always}
ipv6: {description: Whether the kernel speaks IPv6., type: bool, returned: always}
sshd_ports: {description: Ports that sshd listens on., type: list, returned: always}
shares_redis: {description: Whether an environment uses the node's own Redis., type: bool, returned: always}
interrupted: {description: Whether an earlier run changed something and did not end., type: bool, returned: always}
"""


def output(argv):
    """What a command printed; empty where the command does not exist."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        ).stdout.decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def text_of(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def missing(packages):
    listing = output(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages])
    installed = {line.split()[0] for line in listing.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def distribution():
    fields = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', text_of("/etc/os-release"), re.MULTILINE))
    return f"{fields.get('ID', 'unknown')} {fields.get('VERSION_ID', '')}".strip()


def newest_php():
    versions = [re.search(r"(\d+)\.(\d+)$", path) for path in glob.glob("/usr/sbin/php-fpm[0-9]*.[0-9]*")]
    found = sorted(tuple(map(int, version.groups())) for version in versions if version)
    return "{}.{}".format(*found[-1]) if found else ""


def memory_mb():
    return int(re.search(r"^MemTotal:\s+(\d+) kB", text_of("/proc/meminfo"), re.MULTILINE).group(1)) // 1024


def sshd_ports():
    ports = re.findall(r"^port (\d+)$", output(["/usr/sbin/sshd", "-T"]), re.MULTILINE)
    return sorted({int(port) for port in ports})


def shares_redis():
    """Whether an environment here was last applied by a version that knew no Redis but the node's."""
    return any(is_sharing(text_of(path)) for path in glob.glob(f"{ENVIRONMENTS}/*.json"))


def is_sharing(manifest):
    try:
        found = json.loads(manifest)
        variables = found["variables"]
        return variables["redis_cache"] and f"trueup-redis@{variables['id']}.service" not in found["services"]
    except (ValueError, KeyError, TypeError):
        return True  # nobody knows: it may need it


def refuse_a_late_job(job):
    """Raise Refused for a job that must not touch this node, before anything else is asked."""
    with Fence("node", job):
        pass


def main():
    options = {"packages": {"type": "list", "elements": "str", "required": True}, "job": {"type": "dict"}}
    module = AnsibleModule(options, supports_check_mode=True)
    try:
        if not module.check_mode:
            refuse_a_late_job(module.params["job"])
    except Refused as error:
        module.fail_json(msg=str(error), **error.facts)
    module.exit_json(
        changed=False,
        missing=missing(module.params["packages"]),
        distribution=distribution(),
        php=newest_php(),
        memory_mb=memory_mb(),
        ipv6=os.path.exists("/proc/net/if_inet6"),
        sshd_ports=sshd_ports(),
        shares_redis=shares_redis(),
        interrupted=pending.begun(),
    )


if __name__ == "__main__":
    main()
