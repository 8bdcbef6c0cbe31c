"""Documents that go: an environment's, or a site's with those of all its environments."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict
from reconciler.core.fleet import Fleet
from reconciler.core.intents.edits import BaseIntent, Edit, Statuses, refuse_untouchable
from reconciler.core.manifests import EnvironmentType
from reconciler.core.status import EnvironmentStatus

_AT_REST = frozenset({EnvironmentStatus.ACTIVE, EnvironmentStatus.FAILED})


class RemoveEnvironment(BaseIntent):
    operation: Literal["remove_environment"] = "remove_environment"
    environment_id: UUID


class RemoveSite(BaseIntent):
    """``confirm`` is the site's slug, where it has a production environment."""

    operation: Literal["remove_site"] = "remove_site"
    site_id: UUID
    confirm: str | None = None


def remove_environment(intent: RemoveEnvironment, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    if environment.manifest.spec.type is EnvironmentType.PRODUCTION:
        raise Conflict(f"{environment.key} is the site's production environment. It goes with its site alone.")
    copies = [one.key for one in fleet.environments.values() if _source(one) == environment.id]
    if copies:
        raise Conflict(f"{environment.key} is what {', '.join(sorted(copies))} was made from. Remove that first.")
    _refuse_busy(environment, statuses, now)
    return Edit(message=f"Remove environment {environment.key}", delete=frozenset({environment.path}))


def remove_site(intent: RemoveSite, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    site = fleet.site(intent.site_id)
    environments = fleet.environments_by_site.get(site.slug, ())
    stalled = [one for one in fleet.stalled if one.path.startswith(f"sites/{site.slug}/")]
    if stalled:
        raise Conflict(f"{stalled[0]} Correct the document first, so that it is known what goes.")
    if fleet.production_of(site) and intent.confirm != site.slug:
        raise Conflict(f"Site {site.slug} has its production environment. Confirm with its slug: ?confirm={site.slug}.")
    for environment in environments:
        _refuse_busy(environment, statuses, now)
    paths = {site.path, *(environment.path for environment in environments)}
    return Edit(message=f"Remove site {site.slug}", delete=frozenset(paths))


def _source(environment: EnvironmentEntry) -> UUID | None:
    return environment.manifest.spec.source_environment


def _refuse_busy(environment: EnvironmentEntry, statuses: Statuses, now: datetime) -> None:
    """A failed one may go: that is what is done with it, often."""
    refuse_untouchable(environment, now)
    status = statuses.get(environment.id, EnvironmentStatus.ACTIVE)
    if status not in _AT_REST:
        raise Conflict(f"Environment {environment.key} is {status}. Wait for its job to finish.")
