# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""What a run left that was stopped half-way, and that nothing declared goes on with: put back, and cleared away.

A run that is killed and comes again goes on where it was. One that was cancelled doesn't come again: its declaration
was taken back, and the next run of role C(environment), which knows what is declared and what was applied, finds these.
"""

from __future__ import annotations

import os
import re

from ansible_collections.trueup.wordpress.plugins.module_utils.content import replace
from ansible_collections.trueup.wordpress.plugins.module_utils.content.schema_copy import Swap
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.layout import Layout
from ansible_collections.trueup.wordpress.plugins.module_utils.release import releases
from ansible_collections.trueup.wordpress.plugins.module_utils.tree import paths

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def workplaces(layout):
    """Directories in which content and code are got ready, of no use to anybody but the run that made them."""
    ours = (f"{layout.site}/{name}" for name in ("importing", "unpacking", "updating"))
    return (*ours, f"/var/tmp/trueup-{layout.id}")


def contents(run, layout, ledger, declared):
    """Take content out that was swapped in and never applied, and what was staged; whether there was any."""
    incoming = f"{layout.site}/incoming"
    found = [name for name in paths.names(incoming) if name != declared and UUID.fullmatch(name)]
    for name in found:
        if run.change(f"content {name}", "left half-way", ""):
            swap = Swap(run, layout, name)
            if name not in {*ledger.contents, ledger.staged}:
                swap.back()
            swap.forget()
    for path in workplaces(layout):
        if paths.is_directory(path) and run.change(path, "left half-way", ""):
            paths.remove(path)
    return bool(found)


def replacement(run, layout, ledger):
    """Take a search-replace back, row by row, that ended half-way; whether there was one."""
    content = replace.unfinished(layout.replaced)
    if content is None or not run.change(f"content {content}", "left half-way", ""):
        return content is not None
    if content and content not in ledger.contents:
        run.notes += replace.take_back(layout.database, layout.replaced)
    replace.forget(layout.replaced)
    return True


def unserved(run, layout, ledger):
    """Releases of ours that were made and never applied go, unless one is what is declared or served."""
    kept = {*ledger.releases, layout.release_id, os.path.basename(os.path.realpath(layout.current))}
    for name in paths.names(layout.releases):
        made_by_us = UUID.fullmatch(name) and paths.is_file(f"{layout.releases}/{name}.sha256")
        if made_by_us and name not in kept and run.change(f"{layout.releases}/{name}", "never applied", ""):
            releases.discard(Layout(layout.id, name))
