"""What a promotion is decided by: the comparison of two environments on a node, and the gates once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from reconciler.core.actions import CompareContent, PromoteEnvironment
from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.errors import BackupGateUnmet, DriftGateUnmet, DrillGateUnmet, JobError
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode
from reconciler.core.manifests import EnvironmentType
from reconciler.core.node_answer import AnswerRefused, understood
from reconciler.core.promotion import Comparison, differences
from reconciler.core.promotion_preview import Preview
from reconciler.loop.results import redacted
from reconciler.loop.tools import Inputs, Run, Tools
from reconciler.nodes.runner import RunResult
from reconciler.operations.gates import refuse_unmet_gates

NO_BASELINE = frozenset({JobErrorCode.BASELINE_MISSING, JobErrorCode.PROMOTION_ELSEWHERE})


@dataclass(frozen=True)
class Compared:
    """What a comparison found: differences for a drift check to keep, and the same by name."""

    differences: tuple[dict[str, Any], ...] = ()
    preview: Preview | None = None


def compare_content(
    environment: EnvironmentEntry, node: NodeEntry, tools: Tools, fleet: Fleet, run: Run
) -> Compared | RunResult:
    """What the environment and the one that it was copied from changed since; the run, if it failed.

    Nothing, where there is nothing to compare: production, a source on another node, no copy at all.
    """
    target = _copied_from(environment, fleet)
    if target is None or target.manifest.spec.node != node.slug:
        return Compared()
    action = CompareContent(node.slug, node.id, environment.id, fleet.environment_variables(environment.id))
    preset = environment.manifest.spec.promotion_preset
    asked = {"target": str(target.id), "preset": preset.value if preset else None}
    result = tools.apply(action, fleet, run, Inputs({"trueup_comparison": asked}))
    if not result.ok:
        return Compared() if result.error_code in NO_BASELINE else result
    found = next((one.data for one in result.results if "written" in one.data), None)
    if found is None:
        return result
    try:
        comparison = understood(Comparison, {**found, "preview": redacted(found.get("preview"))})
    except AnswerRefused as error:
        message = f"How {node.slug} compares {environment.key} cannot be understood: {error}"
        raise JobError(JobErrorCode.ANSIBLE_UNEXPECTED_ERROR, message) from error
    return Compared(differences(comparison, str(target.id)), comparison.preview)


def _copied_from(environment: EnvironmentEntry, fleet: Fleet) -> EnvironmentEntry | None:
    spec, site = environment.manifest.spec, fleet.site_of(environment)
    if spec.type is EnvironmentType.PRODUCTION or site is None:
        return None
    if spec.source_environment:
        return fleet.environments.get(spec.source_environment)
    return fleet.production_of(site)


def refuse_late(action: PromoteEnvironment, tools: Tools, fleet: Fleet, run: Run) -> None:
    """The gates again, now that the promotion's turn has come; the backup is as old as when it was asked for.

    Raises:
        JobError: one of them isn't met any more.
    """
    content = action.variables.content
    source = content.source_environment
    if source is None or UUID(source) not in fleet.environments:
        raise JobError(JobErrorCode.TARGET_MISSING, "The environment to promote is no longer declared.")
    asked = tools.state.records.jobs.get(run.job_id).created_at
    try:
        refuse_unmet_gates(
            UUID(source), action.environment_id, tools.state, asked, content.include or (), content.exclude or ()
        )
    except DriftGateUnmet as error:
        raise JobError(JobErrorCode.DRIFT_GATE_UNMET, error.message) from error
    except BackupGateUnmet as error:
        raise JobError(JobErrorCode.BACKUP_GATE_UNMET, error.message) from error
    except DrillGateUnmet as error:
        raise JobError(JobErrorCode.DRILL_GATE_UNMET, error.message) from error
