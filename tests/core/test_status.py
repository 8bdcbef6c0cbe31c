"""Statuses come from job states alone."""

from __future__ import annotations

import pytest

from reconciler.core.jobs import JobStatus, JobType
from reconciler.core.observed import Unreachable
from reconciler.core.status import EnvironmentStatus, NodeStatus, node_status, site_status, summarize
from tests.core import documents as d
from tests.core.fake_node import NOW, fresh, provisioned

E, J, T = EnvironmentStatus, JobStatus, JobType


@pytest.mark.parametrize(
    ("job_type", "job_status", "before", "after"),
    [
        (T.SITE_CREATE, J.QUEUED, E.ACTIVE, E.DEPLOYING),
        (T.SITE_CREATE, J.RUNNING, E.DEPLOYING, E.DEPLOYING),
        (T.SITE_CREATE, J.SUCCEEDED, E.DEPLOYING, E.ACTIVE),
        (T.SITE_CREATE, J.FAILED, E.DEPLOYING, E.FAILED),
        (T.SITE_CREATE, J.CANCELLED, E.DEPLOYING, E.FAILED),
        (T.ENVIRONMENT_CREATE, J.RUNNING, E.ACTIVE, E.CLONING),
        (T.RESTORE, J.RUNNING, E.ACTIVE, E.RESTORING),
        (T.CACHE_UPDATE, J.RUNNING, E.ACTIVE, E.ACTIVE),
        (T.CACHE_UPDATE, J.FAILED, E.ACTIVE, E.ACTIVE),
        (T.RECONCILE, J.SUCCEEDED, E.FAILED, E.FAILED),
    ],
)
def test_summarize(job_type: T, job_status: J, before: E, after: E) -> None:
    assert summarize(job_type, job_status, before) is after


def test_site_is_as_affected_as_its_most_affected_environment() -> None:
    assert site_status([]) is E.ACTIVE
    assert site_status([E.ACTIVE, E.CLONING]) is E.CLONING
    assert site_status([E.RESTORING, E.FAILED, E.ACTIVE]) is E.FAILED


def test_node_status() -> None:
    fleet = d.fleet_of(d.small())
    there = provisioned(fleet.node_variables(fleet.nodes_by_slug["web-1"].id))
    silent = Unreachable(since=NOW, reason="timeout")
    assert node_status("active", None) is NodeStatus.PROVISIONING
    assert node_status("active", fresh()) is NodeStatus.PROVISIONING
    assert node_status("active", there) is NodeStatus.ACTIVE
    assert node_status("active", silent) is NodeStatus.UNREACHABLE
    assert node_status("decommissioned", silent) is NodeStatus.DECOMMISSIONED
