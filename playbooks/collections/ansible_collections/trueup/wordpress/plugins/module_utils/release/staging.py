# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What the modules have in common that make something ready beside what an environment serves."""

from __future__ import annotations

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Beside, Failure
from ansible_collections.trueup.wordpress.plugins.module_utils.fence import Fence, Refused


def run_beside(options, bring):
    """Run a module with ``variables`` and these options, behind the fence of its job; in check mode without one.

    ``bring``: takes the run, the parameters and the fence (None in check mode), and answers facts of the result.
    """
    module = AnsibleModule({"variables": {"type": "dict", "required": True}, **options}, supports_check_mode=True)
    os.umask(0o022)
    variables = module.params["variables"]
    job = variables.get("job")
    try:
        layout = Layout(variables["id"])
        run = Beside(module.check_mode, layout.pending, job)
        with contextlib.nullcontext() if module.check_mode else Fence(layout.id, job) as fence:
            run.inherited, run.scope = ((fence.handle,), fence.unit) if fence else ((), None)
            facts = bring(run, module.params, fence)
    except (Failure, Refused) as error:
        module.fail_json(msg=str(error), **error.facts)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    module.exit_json(changed=run.changed, diff=run.diff, notes=run.notes, **facts)
