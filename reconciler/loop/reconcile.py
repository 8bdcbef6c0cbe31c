"""Make one target what its documents say: observe, decide, guard, apply, observe again, summarize."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

from reconciler.core.actions import (
    BACKED_UP,
    Action,
    CheckHealth,
    ConfigureEnvironment,
    Desired,
    PurgeCache,
    ReturnContent,
    SearchText,
    UpdateWordPress,
)
from reconciler.core.certificates import concerns_certificates_alone, failing, to_certify
from reconciler.core.changes import Cause
from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.fleet import Fleet
from reconciler.core.holds import under_holds
from reconciler.core.jobs import JobErrorCode
from reconciler.core.manifests import BackupScope
from reconciler.core.node_answer import AnswerRefused, understood
from reconciler.core.observed import ObservedHealth, ObservedNode, Unreachable
from reconciler.core.options import with_values
from reconciler.core.plan import Answer, Plan, Step, Verdict
from reconciler.core.promotion import is_drift
from reconciler.loop import backups
from reconciler.loop.health import remember
from reconciler.loop.preparing import prepare
from reconciler.loop.promotions import compare_content
from reconciler.loop.results import failure, left_out, notes, replaced
from reconciler.loop.tools import Inputs, Run, Tools
from reconciler.loop.updating import Updated, is_unrecorded, record, update
from reconciler.nodes.runner import RunResult
from reconciler.operations.promotion_preview import RESULT
from reconciler.records.drift import DriftCheck
from reconciler.records.events import EventKind
from reconciler.records.outcomes import Failed, Outcome, Stopped, Succeeded

ROUNDS = 2
"""A host that was never provisioned needs two: the baseline first, then what stands on it."""


def reconcile_environment(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Bring one environment, and before it its node if that was never provisioned, to the desired state."""
    done: list[Step] = []
    told: list[str] = []
    asked: tuple[str, ...] = ()
    dropped: list[str] = []
    changed: dict[str, Any] | None = None
    for _ in range(ROUNDS):
        fleet = tools.state.fleet()
        environment, node = _placed_environment(fleet, environment_id)
        if environment is None or node is None or environment.stalled:
            return _nothing_to_go_by(environment, environment_id)
        answer = _answer(environment_id, node, tools)
        if isinstance(answer, ObservedNode) and is_unrecorded(environment, answer, tools, run):
            record(environment_id, tools, fleet)
            fleet = tools.state.fleet()
        plan = tools.decide(
            fleet,
            {node.slug: answer},
            _deliberate(run, environment_id, node.id),
            lambda _, id_: id_ == run.confirmed,
            asked=run.asked,
        )
        steps = _own_steps(plan, environment_id, node.id, answer)
        if refused := _refusal(node, answer, steps):
            return refused
        todo = [step for step in steps if step.verdict is Verdict.APPLY]
        if not todo and not asked:
            return _telling(dropped, _with_notes(_summary(done, plan.for_environment(environment_id)), told), changed)
        # Certificates are asked for once a job.
        if not todo or (asked and concerns_certificates_alone(todo[0].changes)):
            break
        if isinstance(todo[0].action, UpdateWordPress) and isinstance(answer, ObservedNode):
            updated = update(todo[0].action, answer, tools, fleet, run)
            return (
                _updated(updated, todo[0], environment_id, tools)
                if isinstance(updated, Updated)
                else (_tried(updated, todo[0].action))
            )
        if (run.backs_up or isinstance(todo[0].action, BACKED_UP)) and _is_there(answer, environment_id):
            backups.take(environment_id, uuid5(run.job_id, str(run.fence)), BackupScope.FULL, tools, fleet, run)
        names = () if asked else _names_to_certify(todo[0].action, answer, tools, run)
        result = _apply(todo[0].action, tools, fleet, run, names)
        if failed := failure(result):
            return _tried(failed, todo[0].action)
        dropped += _left_out(result, tools, run)
        told += notes(result)
        changed = _replaced(result) or changed
        asked = asked or names
        done.append(todo[0])
    ended = _with_notes(_confirmed(environment_id, fleet, tools, run, done, asked), told)
    return _telling(dropped, ended, changed)


def _telling(left_out: list[str], outcome: Outcome, changed: dict[str, Any] | None = None) -> Outcome:
    """The outcome, with what a deploy's source had that went into no release, or what a search-replace changed."""
    more = {"left_out": left_out, "replaced": changed}
    if not (left_out or changed) or not isinstance(outcome, Succeeded):
        return outcome
    return replace(outcome, result={**(outcome.result or {}), **{name: one for name, one in more.items() if one}})


def _replaced(result: RunResult) -> dict[str, Any] | None:
    try:
        found = replaced(result)
    except AnswerRefused:
        # It is done; how much it was is not known.
        return None
    return found.model_dump(mode="json") if found else None


def _left_out(result: RunResult, tools: Tools, run: Run) -> list[str]:
    """What a deploy's source has that goes into no release: told, as it is part of no plan."""
    if names := left_out(result):
        tools.tell(run, EventKind.LEFT_OUT, {"names": names})
    return names


def put_right(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Apply one environment whether or not it differs, so that what a stopped run left there goes."""
    fleet = tools.state.fleet()
    environment, node = _placed_environment(fleet, environment_id)
    if environment is None or node is None or environment.stalled:
        return _nothing_to_go_by(environment, environment_id)
    answer = _answer(environment_id, node, tools)
    if refused := _refusal(node, answer, []):
        return refused
    seen = answer.environments.get(str(environment_id)) if isinstance(answer, ObservedNode) else None
    desired = fleet.environment_variables(environment_id)
    under = under_holds(environment, desired, seen, tools.clock(), run.asked if run.deliberate else ())
    variables, held = under.variables, under.options
    action = ConfigureEnvironment(node.slug, node.id, environment_id, variables, held_options=held)
    return failure(_apply(action, tools, fleet, run)) or _confirmed(environment_id, fleet, tools, run, [], ())


def reconcile_node(node_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Bring one node to the baseline; its environments are not touched."""
    fleet = tools.state.fleet()
    node = fleet.nodes.get(node_id)
    if node is None or node.stalled:
        return _nothing_to_go_by(node, node_id)
    answer = tools.observe([node])[node.slug]
    step = tools.decide(fleet, {node.slug: answer}, _deliberate(run, node_id)).for_node(node_id)
    if refused := _refusal(node, answer, [step] if step else []):
        return refused
    if step is None or step.verdict is not Verdict.APPLY:
        return _summary([], step)
    if failed := failure(_apply(step.action, tools, fleet, run)):
        return failed
    after = tools.decide(fleet, tools.observe([node]), _deliberate(run, node_id)).for_node(node_id)
    return _unconverged(after) or _summary([step], after)


def back_up(environment_id: UUID, intent: Mapping[str, Any], tools: Tools, run: Run) -> Outcome:
    """Send one environment's database, files or both to storage."""
    fleet = tools.state.fleet()
    environment, _ = _placed_environment(fleet, environment_id)
    if environment is None or environment.stalled:
        return _nothing_to_go_by(environment, environment_id)
    scope = BackupScope(intent["scope"])
    done = backups.take(environment_id, UUID(intent["backup_id"]), scope, tools, fleet, run)
    return Succeeded({"backup_id": str(done.id), "size_bytes": done.size_bytes})


def purge_cache(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Empty both caches of one environment."""
    fleet = tools.state.fleet()
    environment, node = _placed_environment(fleet, environment_id)
    if environment is None or node is None or environment.stalled:
        return _nothing_to_go_by(environment, environment_id)
    variables = fleet.environment_variables(environment_id)
    failed = failure(_apply(PurgeCache(node.slug, node.id, environment_id, variables), tools, fleet, run))
    return failed or Succeeded()


def check_health(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Ask whether one environment serves. The result is an ``ObservedHealth``; unhealthy is an answer, no failure."""
    fleet = tools.state.fleet()
    environment, node = _placed_environment(fleet, environment_id)
    if environment is None or node is None or environment.stalled:
        return _nothing_to_go_by(environment, environment_id)
    variables = fleet.environment_variables(environment_id)
    result = tools.apply(CheckHealth(node.slug, node.id, environment_id, variables), fleet, run)
    if failed := failure(result):
        return failed
    found = next((one.data["health"] for one in result.results if "health" in one.data), None)
    try:
        health = understood(ObservedHealth, found)
    except AnswerRefused as error:
        message = f"What {node.slug} says of the health of {environment.key} cannot be understood: {error}"
        return Failed(JobErrorCode.ANSIBLE_UNEXPECTED_ERROR, message)
    remember(environment, health, fleet, tools, alone=True)
    return Succeeded(health.model_dump(mode="json"))


def search(environment_id: UUID, intent: Mapping[str, Any], tools: Tools, run: Run) -> Outcome:
    """Count what replacing a text in one environment's tables would change. The result is a ``Replaced``."""
    fleet = tools.state.fleet()
    environment, node = _placed_environment(fleet, environment_id)
    if environment is None or node is None or environment.stalled:
        return _nothing_to_go_by(environment, environment_id)
    action = SearchText(node.slug, node.id, environment_id, fleet.environment_variables(environment_id))
    result = tools.apply(action, fleet, run, Inputs({"trueup_search": intent["search"]}))
    if failed := failure(result):
        return failed
    found = _replaced(result)
    if found is None:
        message = f"What {node.slug} found in {environment.key} cannot be understood."
        return Failed(JobErrorCode.ANSIBLE_UNEXPECTED_ERROR, message)
    return Succeeded({"dry_run": True, "replaced": found})


def check_drift(environment_id: UUID, tools: Tools, run: Run) -> Outcome:
    """Compare one environment with what it should be, every file of its code included, and keep the result."""
    fleet = tools.state.fleet()
    environment, node = _placed_environment(fleet, environment_id)
    if environment is None or node is None or environment.stalled:
        return _nothing_to_go_by(environment, environment_id)
    answer = tools.observe([node], deep=True, environments=[str(environment_id)])[node.slug].about(environment_id)
    if isinstance(answer, Unreachable):
        return Failed(JobErrorCode.ANSIBLE_HOST_UNREACHABLE, answer.reason)
    step = tools.decide(fleet, {node.slug: answer}).for_environment(environment_id)
    seen = answer.environments.get(str(environment_id))
    options = seen.options if seen else {}
    differences = tuple(with_values(change.data(), options) for change in step.changes) if step else ()
    content = compare_content(environment, node, tools, fleet, run)
    if isinstance(content, RunResult):
        return failure(content) or Stopped()
    differences += content.differences
    check = DriftCheck(
        id=run.job_id,
        environment_id=environment_id,
        status="drifted" if any(is_drift(one) for one in differences) else "clean",
        differences=differences,
        created_at=tools.clock(),
        job_id=run.job_id,
        revision=fleet.revision,
    )
    tools.state.records.drift_checks.save(check)
    used = seen.disk_used_bytes if seen else None
    told: dict[str, Any] = {"drift_status": check.status, "differences": list(differences), "disk_used_bytes": used}
    if content.preview:
        told[RESULT] = content.preview.model_dump(mode="json")
    return Succeeded(told)


def _answer(environment_id: UUID, node: NodeEntry, tools: Tools) -> Answer:
    """What the node says now: none, if what it says of this environment cannot be used."""
    return tools.observe([node])[node.slug].about(environment_id)


def _is_there(answer: Answer, environment_id: UUID) -> bool:
    seen = answer.environments.get(str(environment_id)) if isinstance(answer, ObservedNode) else None
    return seen is not None and seen.applied is not None


def _apply(action: Action, tools: Tools, fleet: Fleet, run: Run, names: tuple[str, ...] = ()) -> RunResult:
    with prepare(action, tools, fleet, run) as inputs:
        more = {"trueup_certify": list(names)} if isinstance(action, Desired) else {}
        return tools.apply(action, fleet, run, Inputs({**inputs.extra_vars, **more}, inputs.secrets))


def _tried(ended: Failed | Stopped, action: Action) -> Failed | Stopped:
    """With what was tried, so that it is known again."""
    if isinstance(ended, Stopped):
        return ended
    return replace(ended, result={**(ended.result or {}), "digest": action.variables.digest()})


def _names_to_certify(action: Action, answer: Answer, tools: Tools, run: Run) -> tuple[str, ...]:
    if not isinstance(action, Desired) or not isinstance(answer, ObservedNode):
        return ()
    seen = answer.environments.get(str(action.environment_id))
    return to_certify(action.variables, seen, tools.clock(), deliberate=run.deliberate)


def _placed_environment(fleet: Fleet, environment_id: UUID) -> tuple[EnvironmentEntry | None, NodeEntry | None]:
    environment = fleet.environments.get(environment_id)
    return environment, fleet.node_of(environment) if environment else None


def _nothing_to_go_by(entry: EnvironmentEntry | NodeEntry | None, id_: UUID) -> Failed:
    if entry is None:
        return Failed(JobErrorCode.TARGET_MISSING, f"No document defines {id_} any more. Nothing was done.")
    if entry.stalled:
        return Failed(JobErrorCode.DOCUMENT_STALLED, f"{entry.stalled} Nothing was done. Correct the document.")
    return Failed(JobErrorCode.TARGET_MISSING, f"The node of {entry.path} has no document. Nothing was done.")


def _deliberate(run: Run, *targets: UUID) -> frozenset[UUID]:
    return frozenset(targets) if run.deliberate else frozenset()


def _own_steps(plan: Plan, environment_id: UUID, node_id: UUID, answer: Answer) -> list[Step]:
    """The environment's own step, after its node's where the node was never provisioned."""
    node = plan.for_node(node_id) if isinstance(answer, ObservedNode) and answer.applied is None else None
    return [step for step in (node, plan.for_environment(environment_id)) if step]


def _refusal(node: NodeEntry, answer: Answer, steps: list[Step]) -> Failed | None:
    """Why nothing may be applied now."""
    if isinstance(answer, Unreachable):
        return Failed(JobErrorCode.ANSIBLE_HOST_UNREACHABLE, answer.reason)
    if answer.hold is not None:
        reason = answer.hold or "no reason given"
        return Failed(JobErrorCode.NODE_ON_HOLD, f"Node {node.slug} is on hold: {reason}. Remove /etc/trueup/hold.")
    blocked = [step for step in steps if step.verdict is Verdict.BLOCKED]
    if blocked and not any(step.verdict is Verdict.APPLY for step in steps):
        return Failed(JobErrorCode.PLAN_BLOCKED, f"{blocked[0].action.target}: {blocked[0].reason}")
    return None


def _confirmed(
    environment_id: UUID, fleet: Fleet, tools: Tools, run: Run, done: list[Step], asked: tuple[str, ...]
) -> Outcome:
    """Look again: what the node answers now decides, not what Ansible said.

    Against the revision that was applied: what was committed meanwhile is another job's.
    """
    _, node = _placed_environment(fleet, environment_id)
    answers = {node.slug: _answer(environment_id, node, tools)} if node else {}
    for answer in answers.values():
        if isinstance(answer, Unreachable):
            return Failed(JobErrorCode.ANSIBLE_HOST_UNREACHABLE, answer.reason)
    lifted = run.asked if run.deliberate else frozenset()
    after = tools.decide(fleet, answers, frozenset({environment_id}), asked=lifted).for_environment(environment_id)
    decisive = [name for name in asked if run.decisive is None or name in run.decisive]
    uncertified = _uncertified(environment_id, answers, decisive, tools)
    return _unconverged(after) or uncertified or _summary(done, after)


def _uncertified(environment_id: UUID, answers: Mapping[str, Answer], names: list[str], tools: Tools) -> Failed | None:
    """Why one of these names has no certificate, although one was asked for."""
    seen = [one.environments.get(str(environment_id)) for one in answers.values() if isinstance(one, ObservedNode)]
    found = failing(seen[0] if seen else None, names, tools.clock())
    failures = [one.failure for one in found.values() if one.failure]
    if not failures:
        return None
    code = failures[0].code if failures[0].code in frozenset(JobErrorCode) else JobErrorCode.CERTIFICATE_FAILED
    return Failed(code, " ".join(failure.message for failure in failures))


def _updated(updated: Updated, step: Step, environment_id: UUID, tools: Tools) -> Succeeded:
    """What is left is the loop's: the update itself stands, on the node and in the store."""
    _, node = _placed_environment(fleet := tools.state.fleet(), environment_id)
    left = tools.decide(fleet, tools.observe([node] if node else [])).for_environment(environment_id)
    told = _summary([] if updated.nothing else [step], left)
    return Succeeded({**(told.result or {}), "updated": updated.told()})


def _unconverged(step: Step | None) -> Failed | None:
    # Another role digest means that Trueup was upgraded under a running process; the restarted one sees to it.
    # A name without a certificate says itself why, and how the job ends because of it.
    told = {Cause.UPGRADED, Cause.REFUSED, Cause.EXPIRING}
    changes = step.changes if step and step.verdict is Verdict.APPLY else ()
    left = [change for change in changes if change.is_due and change.cause not in told]
    if not left:
        return None
    fields = "; ".join(f"{c.field}: desired {c.desired}, observed {c.observed}" for c in left[:10])
    return Failed(JobErrorCode.NOT_CONVERGED, f"Applied, and still different: {fields}. Look at the node.")


def _with_notes(ended: Outcome, told: list[str]) -> Outcome:
    if not told or isinstance(ended, Stopped):
        return ended
    return replace(ended, result={**(ended.result or {}), "notes": told})


def _summary(done: list[Step], left: Step | None) -> Succeeded:
    applied = [
        {
            "action": step.action.verb,
            "target": step.action.target,
            "changes": [c.data() for c in step.changes if c.held is None],
            **({"backup_id": str(step.action.kept.backup_id)} if isinstance(step.action, ReturnContent) else {}),
        }
        for step in done
    ]
    reported = [change.data() for change in left.changes] if left else []
    return Succeeded({"applied": applied, "reported": reported})
