"""A drift report, made as a worker makes it."""

from __future__ import annotations

from uuid import UUID

from reconciler.loop.reporting import make_report as make
from reconciler.loop.tools import Tools
from reconciler.operations.declaring import Actor
from reconciler.settings import Settings
from tests.api.control import Control


def make_report(control: Control) -> UUID:
    """Ask for a report and have it made, without a worker; its id."""
    id_ = control.operations.drift_report(Actor("ops", "ops@example.com"))
    tools = Tools(Settings(home=control.home), control.state, control.connections, control.clock)
    make(control.records.jobs.get(id_), tools)
    return id_
