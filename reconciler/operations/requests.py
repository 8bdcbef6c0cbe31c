"""What people ask for: each operation is looked at once before it becomes a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, EnvironmentNotFailed, Invalid, NotFound
from reconciler.core.intents import (
    AddDomain,
    AddNode,
    CreateEnvironment,
    CreateSite,
    Deploy,
    Discard,
    ImportSite,
    Intent,
    Promote,
    RemoveDomain,
    RemoveEnvironment,
    RemoveSite,
    Restore,
    Rollback,
    SearchReplace,
    SetCache,
    Update,
    evaluate,
    refuse_unready,
    refuse_untouchable,
    source_of,
)
from reconciler.core.intents.content import refuse_unpromotable
from reconciler.core.jobs import JobType
from reconciler.core.manifests import BackupScope, EnvironmentType, PromotionPreset, Release, UpdateScope
from reconciler.core.promotion_selection import refusal as unsound
from reconciler.core.replacement import Replacement, refusal
from reconciler.core.status import EnvironmentStatus
from reconciler.dispatch import Dispatcher
from reconciler.operations import removals
from reconciler.operations.declaring import Actor, Declarations, Target, node_target, target_of
from reconciler.operations.drills import backup_to_drill, drill_key
from reconciler.operations.gates import needs_storage, refuse_unmet_gates, refuse_without_changes
from reconciler.operations.options import adoption, set_back
from reconciler.operations.undeclared import undeclared
from reconciler.records.backups import Backup
from reconciler.records.locks import REPORTS, drill_lock, node_lock, site_lock
from reconciler.state import State

SCHEDULED_REPORT = "drift-report:schedule"
"""Of the clock's own: one that waits stands for all that are due."""


class Operations:
    def __init__(
        self,
        state: State,
        dispatcher: Dispatcher,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._state = state
        self._clock = clock
        self._new_id = new_id
        self.declarations = Declarations(state, dispatcher, clock, new_id)

    def create_site(self, name: str, slug: str, actor: Actor, node: str | None = None) -> UUID:
        """Declare a site with its production environment; the job's id.

        Raises:
            Conflict: the slug is taken, or no node can take a site.
        """
        draft = CreateSite(
            name=name,
            slug=slug,
            node=node,
            site_id=self._new_id(),
            environment_id=self._new_id(),
            release_id=self._new_id(),
            content_id=self._new_id(),
        )
        fleet = self._state.fleet()
        # Evaluated once before the row is written, to learn the node whose lock the job needs.
        environment = evaluate(draft, fleet, {}, self._clock()).create[f"sites/{slug}/environments/production.yaml"]
        intent = draft.model_copy(update={"node": environment["spec"]["node"]})
        chosen = fleet.nodes_by_slug[environment["spec"]["node"]]
        target = Target(
            intent.site_id,
            intent.environment_id,
            chosen.id,
            (site_lock(intent.site_id), node_lock(chosen.id, chosen.manifest.spec.concurrency)),
        )
        return self.declarations.declare(intent, JobType.SITE_CREATE, target, actor)

    def set_cache(self, environment_id: UUID, fastcgi: bool | None, redis: bool | None, actor: Actor) -> UUID:
        """Declare the cache flags that are given; the job's id."""
        intent = SetCache(environment_id=environment_id, fastcgi=fastcgi, redis=redis)
        return self._change(intent, environment_id, JobType.CACHE_UPDATE, actor)

    def create_environment(
        self,
        site_id: UUID,
        name: str,
        slug: str,
        type_: EnvironmentType,
        actor: Actor,
        *,
        source_environment_id: UUID | None = None,
        promotion_preset: PromotionPreset | None = None,
        node: str | None = None,
    ) -> UUID:
        """Declare a copy of one of the site's environments; the job's id.

        Raises:
            Conflict: the slug is taken, the source is busy or failed, or no node can take it.
        """
        fleet = self._state.fleet()
        site = fleet.site(site_id)
        draft = CreateEnvironment(
            site_id=site_id,
            environment_id=self._new_id(),
            release_id=self._new_id(),
            content_id=self._new_id(),
            name=name,
            slug=slug,
            type=type_,
            source_environment_id=source_environment_id,
            promotion_preset=promotion_preset,
            node=node,
        )
        documents = evaluate(draft, fleet, self.declarations.statuses(), self._clock()).create
        chosen = fleet.nodes_by_slug[next(iter(documents.values()))["spec"]["node"]]
        intent = draft.model_copy(
            update={"node": chosen.slug, "source_environment_id": source_of(source_environment_id, site, fleet).id}
        )
        locks = dict.fromkeys(target_of(fleet, intent.source_environment_id or site_id).locks)
        locks[node_lock(chosen.id, chosen.manifest.spec.concurrency)] = None
        target = Target(site_id, intent.environment_id, chosen.id, tuple(locks))
        return self.declarations.declare(intent, JobType.ENVIRONMENT_CREATE, target, actor)

    def import_site(self, site_id: UUID, archive_url: str, actor: Actor) -> UUID:
        """Declare that the site's production environment holds what the archive has; the job's id."""
        fleet = self._state.fleet()
        site = fleet.site(site_id)
        environment = fleet.production_of(site)
        if environment is None:
            raise Conflict(f"Site {site.slug} has no production environment to import into.")
        needs_storage(fleet, "An import")
        intent = ImportSite(
            environment_id=environment.id,
            archive_url=archive_url,
            release_id=self._new_id(),
            content_id=self._new_id(),
        )
        return self._change(intent, environment.id, JobType.SITE_IMPORT, actor)

    def deploy(
        self,
        environment_id: UUID,
        source_type: Literal["git", "upload"],
        source_ref: str,
        actor: Actor,
        *,
        revision: str | None = None,
    ) -> UUID:
        """Declare a release of this source; the job's id."""
        intent = Deploy(
            environment_id=environment_id,
            release_id=self._new_id(),
            source_type=source_type,
            source_ref=source_ref,
            revision=revision,
        )
        return self._change(intent, environment_id, JobType.DEPLOY, actor)

    def rollback(
        self,
        environment_id: UUID,
        release: Release,
        wordpress_version: str,
        actor: Actor,
        *,
        reason: str | None = None,
    ) -> UUID:
        """Declare a release that the node still has; the job's id. ``reason`` goes into the commit's message."""
        intent = Rollback(
            environment_id=environment_id, release=release, wordpress_version=wordpress_version, reason=reason
        )
        return self._change(intent, environment_id, JobType.DEPLOY, actor)

    def update(self, environment_id: UUID, scope: UpdateScope, actor: Actor) -> UUID:
        """Declare that core, plugins or themes are updated; the job's id."""
        fleet = self._state.fleet()
        fleet.environment(environment_id)
        needs_storage(fleet, "An update")
        intent = Update(environment_id=environment_id, release_id=self._new_id(), scope=scope)
        return self._change(intent, environment_id, JobType.UPDATES, actor)

    def adopt(self, environment_id: UUID, actor: Actor) -> UUID:
        """Declare the code and the options as they are on the node by now; the job's id.

        Raises:
            Conflict: the last drift check found neither changed.
        """
        intent = adoption(environment_id, self._state, self._new_id)
        return self._change(intent, environment_id, JobType.DRIFT_ADOPT, actor)

    def discard(self, environment_id: UUID, actor: Actor) -> UUID:
        """Code as it was released, options as they are declared, after a full backup; the job's id.

        Raises:
            Conflict: the last drift check found neither changed.
        """
        has_code = refuse_without_changes(environment_id, self._state, core=True)
        needs_storage(self._state.fleet(), "Discarding what was changed")
        if not has_code:
            return set_back(environment_id, self._state, self.declarations, self._clock(), actor)
        intent = Discard(environment_id=environment_id, release_id=self._new_id())
        return self._change(intent, environment_id, JobType.DRIFT_DISCARD, actor)

    def restore(
        self, environment_id: UUID, backup_id: UUID, scope: BackupScope, wordpress_version: str | None, actor: Actor
    ) -> UUID:
        """Declare that the environment holds what the backup has; the job's id. The caller has looked at the backup."""
        needs_storage(self._state.fleet(), "A restore")
        intent = Restore(
            environment_id=environment_id,
            backup_id=backup_id,
            scope=scope,
            wordpress_version=wordpress_version,
            release_id=self._new_id(),
            content_id=self._new_id(),
        )
        return self._change(intent, environment_id, JobType.RESTORE, actor)

    def promote(
        self,
        environment_id: UUID,
        target_environment_id: UUID,
        actor: Actor,
        *,
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
    ) -> UUID:
        """Declare that the target has what changed in this environment; the job's id. It is the target's job.

        ``include``, ``exclude``: ``group:NAME``, ``option:NAME``, ``plugin:NAME``; without them all of it.

        Raises:
            Invalid: the same is included and excluded.
            DriftGateUnmet: the environment was not checked since it changed, or both sides changed the same.
            BackupGateUnmet: the target has no completed full backup of the last hour.
            DrillGateUnmet: the target has to have a drilled backup, and has none that is recent and passed.
        """
        fleet = self._state.fleet()
        refuse_unpromotable(fleet.environment(environment_id), fleet.environment(target_environment_id))
        if why := unsound(include, exclude):
            raise Invalid(why)
        refuse_unmet_gates(environment_id, target_environment_id, self._state, self._clock(), include, exclude)
        needs_storage(fleet, "A promotion")
        intent = Promote(
            environment_id=environment_id,
            target_environment_id=target_environment_id,
            release_id=self._new_id(),
            content_id=self._new_id(),
            include=include,
            exclude=exclude,
        )
        return self._change(intent, target_environment_id, JobType.PROMOTE, actor, beside=environment_id)

    def search_replace(self, environment_id: UUID, wanted: Replacement, actor: Actor, *, dry_run: bool = True) -> UUID:
        """Replace a text in the environment's tables, after a full backup; the job's id.

        ``dry_run``: only count what would change. The job's result has the counts, by table and with examples.

        Raises:
            Invalid: a text makes no sense.
            Conflict: both are the same.
            StorageNotConfigured: there is nowhere to put the backup.
        """
        if why := refusal(wanted.search, wanted.replace):
            raise Conflict(why) if wanted.search == wanted.replace else Invalid(why)
        fleet = self._state.fleet()
        target = target_of(fleet, environment_id)
        if dry_run:
            details = {"search": wanted.model_dump(mode="json")}
            return self.declarations.enqueue(JobType.SEARCH, target, actor, details=details)
        needs_storage(fleet, "A search-replace")
        intent = SearchReplace(environment_id=environment_id, content_id=self._new_id(), **wanted.model_dump())
        return self._change(intent, environment_id, JobType.SEARCH_REPLACE, actor)

    def add_domain(self, environment_id: UUID, hostname: str, actor: Actor) -> UUID:
        """Declare a domain; the job's id."""
        intent = AddDomain(environment_id=environment_id, domain_id=self._new_id(), hostname=hostname)
        return self._change(intent, environment_id, JobType.DOMAIN_ADD, actor)

    def remove_domain(self, domain_id: UUID, actor: Actor) -> UUID:
        """Declare that a domain is served no more; the job's id."""
        fleet = self._state.fleet()
        if domain_id not in fleet.domains:
            raise NotFound(f"No domain has the id {domain_id}. List them to see which there are.")
        environment, _ = fleet.domains[domain_id]
        return self._change(RemoveDomain(domain_id=domain_id), environment.id, JobType.DOMAIN_REMOVE, actor)

    def back_up(self, environment_id: UUID, scope: BackupScope, actor: Actor) -> UUID:
        """Send database, files or both to storage; the job's id.

        Raises:
            StorageNotConfigured: the platform document names no storage.
        """
        fleet = self._state.fleet()
        environment = fleet.environment(environment_id)
        refuse_unready(environment, self.declarations.statuses(), self._clock())
        needs_storage(fleet, "A backup")
        backup_id, now = self._new_id(), self._clock()
        pending = Backup(
            id=backup_id,
            environment_id=environment_id,
            backup_scope=scope.value,
            status="pending",
            storage_path=f"{environment_id}/{backup_id}",
            created_at=now,
        )
        self._state.records.backups.save(pending)
        details = {"backup_id": str(backup_id), "scope": scope.value}
        return self.declarations.enqueue(JobType.BACKUP, target_of(fleet, environment_id), actor, details=details)

    def drill(self, environment_id: UUID, actor: Actor) -> UUID:
        """Restore the newest completed backup into a throwaway copy on the node, and check it; the job's id.

        It takes none of the node's slots: it works when nothing else wants to, and one at a time. Whatever else is
        asked for of its site has it stop: it is cancelled then, and another one is due an hour later.

        Raises:
            StorageNotConfigured: the platform document names no storage.
            Conflict: there is no completed backup, or nothing may be done to the environment.
        """
        fleet = self._state.fleet()
        environment = fleet.environment(environment_id)
        refuse_untouchable(environment, self._clock())
        needs_storage(fleet, "A drill")
        if backup_to_drill(environment, fleet, self._state.records, self._clock()) is None:
            raise Conflict(f"Environment {environment.key} has no completed backup to drill. Make one first.")
        site, node = fleet.site_of(environment), fleet.node_of(environment)
        locks = (*([drill_lock(node.id)] if node else []), *([site_lock(site.id)] if site else []))
        target = replace(target_of(fleet, environment_id), locks=locks)
        return self.declarations.enqueue(JobType.DRILL, target, actor, dedupe_key=drill_key(environment_id))

    def remove_environment(self, environment_id: UUID, actor: Actor) -> UUID:
        """Back the environment up, then remove its document and all of it on its node; the job's id."""
        intent = RemoveEnvironment(environment_id=environment_id)
        return removals.remove(intent, self._state.fleet(), self.declarations, self._clock(), actor)

    def remove_site(self, site_id: UUID, confirm: str | None, actor: Actor) -> UUID:
        """Remove the site with all its environments, each backed up first; the job's id."""
        intent = RemoveSite(site_id=site_id, confirm=confirm)
        return removals.remove(intent, self._state.fleet(), self.declarations, self._clock(), actor)

    def remove_undeclared(self, key: str, confirm: str | None, actor: Actor) -> UUID:
        """Back up, and take off its node, what has no document any more; the job's id. See ``undeclared``.

        Raises:
            Conflict: it was a production environment, and ``confirm`` is not its site's slug.
        """
        return removals.remove_undeclared(undeclared(self._state, key), confirm, self.declarations, actor)

    def purge_cache(self, environment_id: UUID, actor: Actor) -> UUID:
        """Empty both caches of the environment; the job's id."""
        fleet = self._state.fleet()
        refuse_untouchable(fleet.environment(environment_id), self._clock())
        return self.declarations.enqueue(JobType.CACHE_PURGE, target_of(fleet, environment_id), actor)

    def drift_check(self, environment_id: UUID, actor: Actor) -> UUID:
        """Compare the environment with what it should be, files included; the job's id."""
        return self.declarations.enqueue(JobType.DRIFT_CHECK, target_of(self._state.fleet(), environment_id), actor)

    def drift_report(self, actor: Actor, *, scheduled: bool = False) -> UUID:
        """Make a report of what is known of all environments and nodes; the job's id, and the report's."""
        return self.declarations.enqueue(
            JobType.DRIFT_REPORT,
            Target(locks=(REPORTS,)),
            actor,
            details={"scheduled": scheduled},
            dedupe_key=SCHEDULED_REPORT if scheduled else None,
        )

    def check_health(self, environment_id: UUID, actor: Actor) -> UUID:
        """Ask whether the environment serves; the job's id. Its result says so."""
        return self.declarations.enqueue(JobType.HEALTH_CHECK, target_of(self._state.fleet(), environment_id), actor)

    def reset_environment(self, environment_id: UUID, actor: Actor) -> UUID:
        """Make a failed environment active again if it is found healthy; the job's id.

        Raises:
            EnvironmentNotFailed: it isn't failed.
        """
        fleet = self._state.fleet()
        return self._reset((fleet.environment(environment_id),), target_of(fleet, environment_id), actor)

    def reset_site(self, site_id: UUID, actor: Actor) -> UUID:
        """The same for all of the site's environments that are failed, by one job."""
        fleet = self._state.fleet()
        environments = fleet.environments_by_site.get(fleet.site(site_id).slug, ())
        locks = dict.fromkeys(lock for one in environments for lock in target_of(fleet, one.id).locks)
        return self._reset(environments, Target(site_id=site_id, locks=tuple(locks)), actor)

    def _reset(self, environments: tuple[EnvironmentEntry, ...], target: Target, actor: Actor) -> UUID:
        statuses = self.declarations.statuses()
        failed = [one for one in environments if statuses.get(one.id) is EnvironmentStatus.FAILED]
        if not failed:
            names = ", ".join(one.key for one in environments) or "This site, which has no environment,"
            raise EnvironmentNotFailed(f"{names} is not failed, so there is nothing to reset.")
        ids = sorted(str(one.id) for one in failed)
        return self.declarations.enqueue(
            JobType.HEALTH_CHECK, target, actor, details={"reset": ids}, dedupe_key=f"reset:{','.join(ids)}"
        )

    def apply(self, environment_id: UUID, actor: Actor, *, confirmed: UUID | None = None) -> UUID:
        """Reconcile the environment because somebody said so; also what brings a failed one back. The job's id.

        ``confirmed``: the former content that it may go back to, whatever was written since.
        """
        fleet = self._state.fleet()
        refuse_untouchable(fleet.environment(environment_id), self._clock())
        details = {"confirmed": str(confirmed)} if confirmed else None
        target = target_of(fleet, environment_id)
        return self.declarations.enqueue(JobType.RECONCILE, target, actor, deliberate=True, details=details)

    def cancel(self, job_id: UUID, actor: Actor) -> UUID:
        """Stop a job, wherever it is; its id. See ``Declarations.cancel``."""
        return self.declarations.cancel(job_id, actor).id

    def provision(self, node_id: UUID, actor: Actor) -> UUID:
        """Bring the node to the baseline; the job's id."""
        return self.declarations.enqueue(
            JobType.NODE_PROVISION, node_target(self._state.fleet(), node_id), actor, deliberate=True
        )

    def add_node(self, name: str, address: str, port: int, user: str, host_key: str, actor: Actor) -> UUID:
        """Declare a host and provision it; the job's id."""
        node_id = self._new_id()
        intent = AddNode(node_id=node_id, name=name, address=address, port=port, user=user, host_key=host_key)
        evaluate(intent, self._state.fleet(), {}, self._clock())
        target = Target(node_id=node_id, locks=(node_lock(node_id, 1),))
        return self.declarations.declare(intent, JobType.NODE_PROVISION, target, actor)

    def _change(
        self, intent: Intent, environment_id: UUID, job_type: JobType, actor: Actor, *, beside: UUID | None = None
    ) -> UUID:
        """Declare a change of one environment; the job locks the node of ``beside`` too."""
        fleet = self._state.fleet()
        # Refused before a row is written; the commit evaluates it again on the head that it stands on.
        evaluate(intent, fleet, self.declarations.statuses(), self._clock())
        target = target_of(fleet, environment_id)
        if beside:
            locks = dict.fromkeys((*target.locks, *target_of(fleet, beside).locks))
            target = replace(target, locks=tuple(locks))
        return self.declarations.declare(intent, job_type, target, actor)
