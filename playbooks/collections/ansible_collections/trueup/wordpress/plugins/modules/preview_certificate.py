#!/usr/bin/python
# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Has nginx show one certificate for all preview URLs of this node, or none."""

# Ansible wants its documentation above the imports.
# ruff: noqa: E402
from __future__ import annotations

DOCUMENTATION = r"""
module: preview_certificate
short_description: Show a wildcard certificate for preview URLs
description:
  - Puts certificate and key into a directory of their own, checks nginx's configuration, and reloads nginx.
  - What nginx does not take is taken back, and what was shown before is shown on.
  - Without C(domain) the certificate is taken away.
options:
  domain:
    description: The preview domain.
    type: str
  chain:
    description: The certificate and its issuers', in PEM.
    type: str
  key:
    description: Its key, in PEM.
    type: str
author: Trueup
"""

EXAMPLES = r"""
- name: Show a certificate
  trueup.wordpress.preview_certificate:
    domain: preview.example.com
    chain: "{{ chain }}"
    key: "{{ key }}"
"""

RETURN = r"""
shown: {description: The preview URLs that nginx was seen to show it for., type: list, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.preview import Preview
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused


def main():
    options = {"domain": {"type": "str"}, "chain": {"type": "str"}, "key": {"type": "str", "no_log": True}}
    together = [("domain", "chain", "key")]
    module = AnsibleModule(options, supports_check_mode=True, required_together=together)
    preview = Preview(module.params)
    if module.check_mode:
        module.exit_json(changed=preview.differs(), shown=[])
    try:
        with Fence("preview", None):
            changed = preview.apply()
    except Refused as error:
        module.fail_json(msg=str(error), **error.facts)
    except Failure as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, shown=preview.names())


if __name__ == "__main__":
    main()
