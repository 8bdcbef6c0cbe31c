"""Removals as people ask for them. The job commits by itself, once the backups are there."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from reconciler.core.errors import Conflict
from reconciler.core.fleet import Fleet
from reconciler.core.intents import RemoveEnvironment, RemoveSite, evaluate
from reconciler.core.jobs import JobType
from reconciler.core.manifests import EnvironmentType
from reconciler.operations.declaring import Actor, Declarations, Target, target_of
from reconciler.operations.gates import needs_storage
from reconciler.operations.undeclared import Undeclared
from reconciler.records.locks import site_lock


def remove(
    intent: RemoveEnvironment | RemoveSite, fleet: Fleet, declarations: Declarations, now: datetime, actor: Actor
) -> UUID:
    """Back up what is there, then remove documents and environments; the job's id.

    Raises:
        Conflict: something is in the way, or it is not confirmed.
        StorageNotConfigured: there would be no backup.
    """
    evaluate(intent, fleet, declarations.statuses(), now)
    if isinstance(intent, RemoveSite):
        environments = fleet.environments_by_site.get(fleet.site(intent.site_id).slug, ())
        job_type, target = (
            JobType.SITE_REMOVE,
            _whole(intent.site_id, [target_of(fleet, one.id) for one in environments]),
        )
    else:
        environments = (fleet.environment(intent.environment_id),)
        job_type, target = JobType.ENVIRONMENT_REMOVE, target_of(fleet, intent.environment_id)
    if environments:
        needs_storage(fleet, "A removal")
    return declarations.enqueue(job_type, target, actor, details={"removal": intent.model_dump(mode="json")})


def _whole(site_id: UUID, targets: list[Target]) -> Target:
    """The site with all that its environments are locked by."""
    locks = dict.fromkeys(lock for target in targets for lock in target.locks)
    locks[site_lock(site_id)] = None
    return Target(site_id=site_id, locks=tuple(locks))


def remove_undeclared(found: Undeclared, confirm: str | None, declarations: Declarations, actor: Actor) -> UUID:
    """Back up, and take off its node, what has no document any more; the job's id.

    Raises:
        Conflict: it was a production environment, and ``confirm`` is not its site's slug.
        StorageNotConfigured: there would be no backup.
    """
    environment, key = found.environment, found.environment.key
    if environment.manifest.spec.type is EnvironmentType.PRODUCTION and confirm != environment.site:
        how = f"Confirm with the site's slug: `trueup remove {key} --confirm {environment.site}`."
        raise Conflict(f"{key} was its site's production environment. {how}")
    needs_storage(found.fleet, "A removal")
    removal = RemoveEnvironment(environment_id=environment.id).model_dump(mode="json")
    return declarations.enqueue(
        JobType.ENVIRONMENT_REMOVE,
        target_of(found.fleet, environment.id),
        actor,
        details={"removal": removal, "undeclared": key},
        dedupe_key=f"undeclared:{environment.id}",
    )
