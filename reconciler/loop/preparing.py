"""What a playbook needs and no document says: archives fetched to this host, addresses that are valid for an hour."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.core.actions import (
    Action,
    CloneEnvironment,
    DeployRelease,
    ImportContent,
    PromoteEnvironment,
    RestoreBackup,
    ReturnContent,
)
from reconciler.core.fleet import Fleet
from reconciler.loop import promotions
from reconciler.loop.backups import inputs_of_restore, inputs_of_return
from reconciler.loop.copies import source_of_copy
from reconciler.loop.tools import Inputs, Run, Tools
from reconciler.sources.resolving import release_archive


@contextmanager
def prepare(action: Action, tools: Tools, fleet: Fleet, run: Run) -> Iterator[Inputs]:
    """The inputs of one action; what was made for it is gone afterwards.

    Raises:
        JobError: it cannot be had; the job fails with the error's code.
    """
    match action:
        case CloneEnvironment():
            with source_of_copy(action, tools, fleet, run) as inputs:
                yield inputs
        case PromoteEnvironment():
            promotions.refuse_late(action, tools, fleet, run)
            yield Inputs()
        case DeployRelease():
            with release_archive(action, tools.settings, fleet, run.cancel) as archive:
                yield Inputs({"trueup_release_archive": archive})
        case RestoreBackup():
            yield inputs_of_restore(action, tools, fleet)
        case ReturnContent():
            yield inputs_of_return(action, tools, fleet)
        case ImportContent():
            yield Inputs({"trueup_import": {"allowed_hosts": list(fleet.platform.spec.imports.allowed_hosts)}})
        case _:
            yield Inputs()
