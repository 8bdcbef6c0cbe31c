"""What a playbook's end means for the job that it ran for."""

from __future__ import annotations

from itertools import islice
from typing import Any

from reconciler.core.jobs import JobErrorCode
from reconciler.core.node_answer import understood
from reconciler.core.replacement import Replaced
from reconciler.core.visible import visible
from reconciler.nodes.redaction import redact
from reconciler.nodes.runner import RunResult
from reconciler.records.outcomes import Failed, Stopped

MOST_NAMES, LONGEST_NAME = 100, 200
MOST_NOTES = 60
LONGEST_NOTE = 500
"""Characters; a site had its say in much of it."""


def left_out(result: RunResult) -> list[str]:
    """What a deploy's source has that goes into no release, as the node tells."""
    told = (one.data.get("left_out") for one in result.results)
    names = [name for one in told if isinstance(one, list) for name in one if isinstance(name, str)]
    return [visible(name, LONGEST_NAME) for name in names[:MOST_NAMES]]


def replaced(result: RunResult) -> Replaced | None:
    """What a search-replace changed, or would change, as the node tells; None where it tells nothing of the kind.

    Raises:
        AnswerRefused: it cannot be understood.
    """
    found = next((one.data["replaced"] for one in result.results if one.data.get("replaced") is not None), None)
    return None if found is None else understood(Replaced, redacted(found))


def redacted(data: Any) -> Any:
    """The data with no secret of ours in its texts: a site had its say in them."""
    if isinstance(data, dict):
        return {key: redacted(value) for key, value in data.items()}
    if isinstance(data, list):
        return [redacted(value) for value in data]
    return redact(data) if isinstance(data, str) else data


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


def notes(result: RunResult) -> list[str]:
    """What the modules of a run say that a person should know, in their order. No terminal obeys it."""
    lists = (one.data.get("notes") for one in result.results)
    said = (note for found in lists if isinstance(found, list) for note in found if isinstance(note, str))
    return [visible(redact(note), LONGEST_NOTE) for note in islice(said, MOST_NOTES)]
