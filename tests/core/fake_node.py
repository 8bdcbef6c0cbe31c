"""A node that exists only as data: it applies actions to its observed state and refuses impossible ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.core.actions import Desired, ProvisionNode
from reconciler.core.certificates import certified
from reconciler.core.observed import Applied, ObservedDomain, ObservedEnvironment, ObservedNode, Served, Service
from reconciler.core.plan import Roles, Step, Verdict
from reconciler.core.variables import EnvironmentVariables, NodeVariables

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ROLES = Roles(node="a" * 64, environment="b" * 64)
RUNNING = Service(active="active", enabled="enabled")


def fresh(hostname: str = "web-1") -> ObservedNode:
    """A host that answers and was never provisioned."""
    return ObservedNode(observed_at=NOW, hostname=hostname)


def provisioned(variables: NodeVariables, *, role_digest: str = ROLES.node) -> ObservedNode:
    files = {"/etc/nginx/conf.d/trueup-http.conf": "1" * 64}
    applied = _applied(variables, role_digest, files, ("nginx.service", "mariadb.service"))
    return fresh(variables.name).model_copy(
        update={"applied": applied, "files": files, "services": dict.fromkeys(applied.services, RUNNING)}
    )


def configured(variables: EnvironmentVariables, *, role_digest: str = ROLES.environment) -> ObservedEnvironment:
    files = {f"/etc/nginx/sites-enabled/trueup-{variables.id}.conf": variables.digest()}
    links = {f"/var/www/sites/{variables.id}/current": f"releases/{variables.release.id}"}
    units = (f"trueup-php@{variables.id}.service", f"trueup-cron@{variables.id}.timer")
    applied = _applied(variables, role_digest, files, units).model_copy(
        update={
            "links": links,
            "releases": (variables.release.id,),
            "contents": (variables.content.id,),
            "options": variables.options,
        }
    )
    return ObservedEnvironment(
        applied=applied,
        files=files,
        links=links,
        services=dict.fromkeys(units, RUNNING),
        database=True,
        options=dict(variables.options),
        wordpress_version=variables.wordpress_version,
        domains={name: ObservedDomain(served=served()) for name in certified(variables)},
    )


def served(*, days: float = 60, age_days: float = 30, **fields: Any) -> Served:
    """A certificate that is `age_days` old and lasts `days` more."""
    start, end = NOW - timedelta(days=age_days), NOW + timedelta(days=days)
    return Served(**{"issuer": "Lab", "not_before": start, "not_after": end, "names_match": True, **fields})


def apply(step: Step, node: ObservedNode) -> ObservedNode:
    """The node after ``step``. Raises AssertionError for a step that no real node could carry out."""
    assert step.verdict is Verdict.APPLY, f"applied a step that is {step.verdict}"
    match step.action:
        case ProvisionNode(variables=variables):
            done = provisioned(variables)
            return done.model_copy(update={"environments": node.environments})
        case action if isinstance(action, Desired):
            variables = action.variables
            assert node.applied is not None, "configured an environment on a node without a baseline"
            before = node.environments.get(variables.id)
            after = configured(variables)
            if before and before.applied:
                assert before.applied.variables["release"]["id"] != variables.release.id or (
                    before.applied.variables["wordpress_version"] == variables.wordpress_version
                ), "a release changed its code"
                # A database that is gone does not come back by configuring.
                after = after.model_copy(
                    update={"database": before.database, "wordpress_version": before.wordpress_version}
                )
            return node.model_copy(update={"environments": {**node.environments, variables.id: after}})


def _applied(
    variables: NodeVariables | EnvironmentVariables, role_digest: str, files: dict[str, str], units: tuple[str, ...]
) -> Applied:
    return Applied(
        format=1,
        variables=variables.model_dump(mode="json", exclude={"job"}),
        digest=variables.digest(),
        role_digest=role_digest,
        files=files,
        services=units,
        applied_at=NOW,
    )
