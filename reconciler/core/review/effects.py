"""What an operation truly does to a site that is visited: the backup before it, and what visitors notice.

Held against ``loop/reconcile.py``, ``loop/updating.py`` and the playbooks; ``docs/pull-requests.md`` has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.core.actions import (
    BACKED_UP,
    AdoptChanges,
    CloneEnvironment,
    ConfigureEnvironment,
    DeployRelease,
    Desired,
    DiscardChanges,
    ImportContent,
    PromoteEnvironment,
    ProvisionNode,
    ReplaceText,
    RestoreBackup,
    ReturnContent,
    UpdateWordPress,
)
from reconciler.core.plan import Step, Verdict


@dataclass(frozen=True)
class Effect:
    """``backup`` and ``downtime`` in words; ``destroys``: what is gone afterwards; None: nothing."""

    backup: str
    downtime: str
    destroys: str | None = None


NOTHING_THERE = Effect("none: there is nothing yet", "none: nobody visits it yet")
ON_RECORD_ALONE = Effect("none", "none: nothing is done on the node")

_EFFECTS: dict[type[Desired] | type[ProvisionNode], Effect] = {
    ConfigureEnvironment: Effect("none: content is not touched", "none: nginx and PHP reload"),
    DeployRelease: Effect(
        "none: content is not touched, the former releases stay on the node",
        "none: the release is asked first, then switched to in one step",
    ),
    UpdateWordPress: Effect(
        "full, after the rehearsal and before the switch",
        "none; seconds of writes are set aside on the node if the update has to go back",
    ),
    AdoptChanges: Effect(
        "none: content is not touched, the former releases stay on the node",
        "none: the copy is asked first, then switched to in one step",
    ),
    DiscardChanges: Effect(
        "full, before anything is made",
        "none: the release is asked first, then switched to in one step",
        "what was changed by hand in the code, from what is served: the former release stays on the node",
    ),
    ImportContent: Effect(
        "full, before anything is brought",
        "none: swapped in at once; what visitors write after the backup began is lost",
        "database, uploads and code that are there now",
    ),
    RestoreBackup: Effect(
        "full, before anything is brought",
        "none: swapped in at once; what visitors write after the backup began is lost",
        "what is there now of what the backup has (database, files or both)",
    ),
    CloneEnvironment: Effect(
        "NONE is taken: make one first with `trueup backup create`",
        "none: swapped in at once; what visitors wrote is lost",
        "database, uploads and code that are there now",
    ),
    ReturnContent: Effect(
        "full, of what is left, before anything is brought",
        "none: swapped in at once; what visitors write after the backup began is lost",
        "database and uploads that are there now",
    ),
    PromoteEnvironment: Effect(
        "none is taken: one younger than 60 minutes must be there, or nothing is done",
        "none: rows that move are locked for moments, other writes go on",
    ),
    ReplaceText: Effect(
        "full, before anything is replaced",
        "none: rows that change are locked for moments, other writes go on",
        "the former text in the tables; a revert goes back to the backup that has it, without what was written since",
    ),
    ProvisionNode: Effect("none", "seconds, where nginx, PHP, MariaDB or Redis must restart"),
}


def effect_of(step: Step, *, is_there: bool) -> Effect:
    """What the step does; ``is_there``: the environment exists on its node."""
    if isinstance(step.action, ProvisionNode):
        return _EFFECTS[ProvisionNode]
    return _EFFECTS[type(step.action)] if is_there else NOTHING_THERE


def needs_storage(step: Step, *, is_there: bool) -> bool:
    """Whether it ends before it began where no storage for backups is declared."""
    return isinstance(step.action, UpdateWordPress) or (is_there and isinstance(step.action, BACKED_UP))


def outcome(step: Step) -> str:
    """What becomes of the step once it is merged."""
    reason = f": {step.reason}" if step.reason else ""
    return f"{_WORDS[step.verdict]}{reason}"


_WORDS = {
    Verdict.APPLY: "applied once merged",
    Verdict.REPORT: "reported only",
    Verdict.PAUSED: "paused",
    Verdict.WAITING: "waits",
    Verdict.BLOCKED: "BLOCKED",
}


def courses(step: Step) -> Iterator[str]:
    """What is to be said beside the facts."""
    if isinstance(step.action, UpdateWordPress | ReturnContent):
        yield step.action.course
