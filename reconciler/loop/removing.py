"""Remove environments: back each up, take the documents out of the store, then take each off its node.

In this order nothing is lost wherever it stops. Before the commit nothing has changed; after it nobody but this job
would touch the nodes, and the job's trailer says from which commit on to look for what is to go.
"""

from __future__ import annotations

from datetime import datetime
from uuid import uuid5

from pydantic import TypeAdapter

from reconciler.core.actions import RemoveEnvironment as Remove
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, JobError, NotFound
from reconciler.core.fleet import Fleet
from reconciler.core.intents import Edit, RemoveEnvironment, RemoveSite, evaluate
from reconciler.core.jobs import JobErrorCode
from reconciler.core.manifests import BackupScope
from reconciler.core.observed import ObservedEnvironment, Unreachable
from reconciler.core.status import EnvironmentStatus
from reconciler.loop import backups
from reconciler.loop.results import failure
from reconciler.loop.tools import Inputs, Run, Tools
from reconciler.operations.aftermath import removed_by
from reconciler.operations.undeclared import undeclared
from reconciler.records.jobs import Job
from reconciler.records.outcomes import Outcome, Stopped, Succeeded
from reconciler.state import State
from reconciler.store.repository import Author, Snapshot

_INTENT: TypeAdapter[RemoveEnvironment | RemoveSite] = TypeAdapter(RemoveEnvironment | RemoveSite)


def remove(job: Job, tools: Tools, run: Run) -> Outcome:
    """Remove what the job's intent names.

    Raises:
        JobError: an environment could not be backed up, or may not go now. Nothing was changed.
    """
    if key := (job.intent or {}).get("undeclared"):
        return _remove_undeclared(job, key, tools, run)
    intent = _INTENT.validate_python((job.intent or {})["removal"])
    committed = removed_by(job, tools.state)
    fleet = _fleet_before(committed, tools.state)
    environments = _named(intent, fleet)
    _refuse_redeclared(environments, committed, tools.state)
    kept: list[str] = []
    if committed is None:
        _edit(intent, fleet, tools.state, tools.clock())
        if not _was_never_made(job, environments, tools.state):
            kept = [id_ for one in environments if (id_ := _kept(one, fleet, tools, run))]
        if run.cancel.is_set():
            return Stopped()
        _commit(intent, job, tools)
    return _take_off(environments, kept, fleet, tools, run)


def _remove_undeclared(job: Job, key: str, tools: Tools, run: Run) -> Outcome:
    """The document went by a push: what is left to do is the backup, once a job, and the node."""
    try:
        found = undeclared(tools.state, key)
    except (Conflict, NotFound) as error:
        raise JobError(JobErrorCode.JOB_CONFLICT, f"{error.message} Nothing was removed.") from error
    environment = found.environment
    last = tools.state.records.backups.newest_full(environment.id, tools.clock())
    if last is None or last.created_at < job.created_at:
        kept = [id_ for id_ in [_kept(environment, found.fleet, tools, run)] if id_]
    else:
        kept = [str(last.id)]
    return Stopped() if run.cancel.is_set() else _take_off([environment], kept, found.fleet, tools, run)


def _take_off(environments: list[EnvironmentEntry], kept: list[str], fleet: Fleet, tools: Tools, run: Run) -> Outcome:
    for environment in environments:
        node = fleet.node_of(environment)
        if node is None:
            continue
        action = Remove(node.slug, node.id, environment.id, fleet.environment_variables(environment.id))
        result = tools.apply(action, fleet, run, Inputs({"confirm": str(environment.id)}))
        if failed := failure(result):
            return failed
        tools.observe([node])
    return Succeeded({"removed": [one.key for one in environments], "backups": kept})


def _was_never_made(job: Job, environments: list[EnvironmentEntry], state: State) -> bool:
    """Whether these are what a cancelled job was about to make, so that there is nothing to keep.

    Raises:
        JobError: somebody has brought one of them to life meanwhile.
    """
    unmade = (job.intent or {}).get("unmade")
    if unmade is None:
        return False
    rows = [state.records.statuses.get(one.id) for one in environments]
    if all(row is not None and str(row.job_id) == unmade for row in rows):
        return True
    message = "What was cancelled has been made by another job since. Nothing was removed."
    raise JobError(JobErrorCode.JOB_CONFLICT, message)


def _fleet_before(committed: str | None, state: State) -> Fleet:
    """The fleet in which the environments were last declared."""
    if committed is None:
        return state.fleet()
    snapshot = state.repository.read(f"{committed}^")
    return state.fleet_of(snapshot.revision, snapshot.documents)


def _refuse_redeclared(environments: list[EnvironmentEntry], committed: str | None, state: State) -> None:
    """Between two attempts somebody may have put a document back: then it is to stay."""
    again = [one.key for one in environments if committed and one.id in state.fleet().environments]
    if again:
        message = f"{', '.join(again)} was declared again after its removal was committed. Nothing more was removed."
        raise JobError(JobErrorCode.JOB_CONFLICT, message)


def _named(intent: RemoveEnvironment | RemoveSite, fleet: Fleet) -> list[EnvironmentEntry]:
    try:
        if isinstance(intent, RemoveEnvironment):
            return [fleet.environment(intent.environment_id)]
        return list(fleet.environments_by_site.get(fleet.site(intent.site_id).slug, ()))
    except NotFound as error:
        raise JobError(JobErrorCode.TARGET_MISSING, f"{error.message} Nothing was done.") from error


def _edit(intent: RemoveEnvironment | RemoveSite, fleet: Fleet, state: State, now: datetime) -> Edit:
    statuses = {id_: EnvironmentStatus(row.status) for id_, row in state.records.statuses.all().items()}
    try:
        return evaluate(intent, fleet, statuses, now)
    except (Conflict, NotFound) as error:
        raise JobError(JobErrorCode.JOB_CONFLICT, f"{error.message} Nothing was removed.") from error


def _kept(environment: EnvironmentEntry, fleet: Fleet, tools: Tools, run: Run) -> str | None:
    """Id of the environment's final backup; None where it never came to be, so that there is nothing to keep."""
    node = fleet.node_of(environment)
    if node is None:
        raise JobError(JobErrorCode.TARGET_MISSING, f"The node of {environment.key} has no document. Add it first.")
    answer = tools.observe([node])[node.slug].about(environment.id)
    if isinstance(answer, Unreachable):
        raise JobError(JobErrorCode.ANSIBLE_HOST_UNREACHABLE, answer.reason)
    if _never_was(answer.environments.get(str(environment.id))):
        return None
    id_ = uuid5(run.job_id, f"{environment.id}/{run.fence}")
    return str(backups.take(environment.id, id_, BackupScope.FULL, tools, fleet, run).id)


def _never_was(seen: ObservedEnvironment | None) -> bool:
    """Nothing of it is on the node, or its making stopped before anything was served."""
    return seen is None or (seen.applied is None and seen.wordpress_version is None)


def _commit(intent: RemoveEnvironment | RemoveSite, job: Job, tools: Tools) -> None:
    state = tools.state

    def edit(snapshot: Snapshot) -> Edit:
        return _edit(intent, state.fleet_of(snapshot.revision, snapshot.documents), state, tools.clock())

    actor = (job.intent or {})["actor"]
    state.repository.commit(edit, Author(actor["name"], actor["email"]), str(job.id))
