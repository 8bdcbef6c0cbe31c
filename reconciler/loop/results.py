"""What a playbook's end means for the job that it ran for."""

from __future__ import annotations

from reconciler.core.jobs import JobErrorCode
from reconciler.nodes.runner import RunResult
from reconciler.records.outcomes import Failed, Stopped


def failure(result: RunResult) -> Failed | Stopped | None:
    """How the job ends because of it; None where it went well."""
    if result.ok:
        return None
    if result.status == "cancelled":
        return Stopped()
    if result.status == "timed_out":
        return Failed(JobErrorCode.JOB_TIMEOUT, result.message)
    code = result.error_code or JobErrorCode.ANSIBLE_UNKNOWN_EXIT
    return Failed(code, f"{result.message}\n\n{result.output}".strip())
