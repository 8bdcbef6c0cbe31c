"""Records as the API answers them: desired state joined with what the records remember."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, TypedDict, TypeVar
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from reconciler.core.certificates import TlsStatus
from reconciler.core.entries import EnvironmentEntry, NodeEntry, SiteEntry
from reconciler.core.jobs import JobStatus, JobType
from reconciler.core.manifests import BackupScope, EnvironmentType, Metadata, PromotionPreset, id_of
from reconciler.core.promotion_preview import MOST_NAMED, Kind, Reason
from reconciler.core.status import DriftStatus, EnvironmentStatus, NodeStatus
from reconciler.nodes.held import Held as Waiting
from reconciler.operations.domains import DeclaredDomain
from reconciler.operations.promotion_preview import Previewed
from reconciler.records.backups import Backup as BackupRow
from reconciler.records.deliveries import Delivery
from reconciler.records.events import Event as EventRow
from reconciler.records.events import EventKind
from reconciler.records.jobs import Job as JobRow
from reconciler.records.reports import KEPT, StoredReport
from reconciler.reports.model import Report, ReportHead
from reconciler.sources.uploads import Upload as KeptUpload
from reconciler.state import EPOCH, CurrentState, Records

T = TypeVar("T")


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Success(_View):
    success: Literal[True]


class JobAccepted(_View):
    job_id: UUID


class Upload(_View):
    upload_id: UUID
    sha256: str
    size_bytes: int
    source_ref: str


class MagicLogin(_View):
    login_url: str
    expires_at: datetime


class HeldName(_View):
    kind: Literal["event", "action", "webhook"]
    name: str
    count: Annotated[int, Field(ge=0)]
    due_at: str | None


class ListedHost(_View):
    """A host that a copy reaches although it is closed."""

    name: str
    addresses: tuple[str, ...]
    error: str | None


class Held(_View):
    """What a copy was kept from doing, and what waits in it."""

    egress: Literal["closed", "open", "unknown"]
    hosts: tuple[ListedHost, ...]
    stopped: dict[str, int]
    held: tuple[HeldName, ...]


class Released(_View):
    held: tuple[HeldName, ...]


class PromotionDifference(_View):
    """One thing that is not the same on both sides; of people's things all of a kind, without a name."""

    kind: Kind
    reason: Reason
    change: Literal["added", "changed", "removed"]
    name: str | None
    type: str | None
    number: int | None
    count: int | None
    details: tuple[str, ...]


PromotionDifferences = Annotated[tuple[PromotionDifference, ...], Field(max_length=MOST_NAMED)]


class PromotionPreview(_View):
    """What is known of a promotion before there is one."""

    counts: dict[str, dict[str, int]]
    moves: PromotionDifferences
    stays: PromotionDifferences
    left_behind: PromotionDifferences
    conflicts: PromotionDifferences


class PromotionRefusal(_View):
    """Why a promotion would be refused now."""

    code: Literal["conflict", "drift_gate_unmet", "backup_gate_unmet", "drill_gate_unmet"]
    message: str


class Promotion(_View):
    """What a promotion would do, and of when that is known; nothing is where it was not looked at."""

    environment_id: UUID
    target_environment_id: UUID
    unmet: PromotionRefusal | None
    checked_at: datetime | None
    job_id: UUID | None
    preview: PromotionPreview | None


class AdoptionBranch(_View):
    """A branch of the followed repository whose merge adopts."""

    branch: str
    base: str
    commit: str
    release_id: UUID | None
    request_url: str | None
    note: str


class Site(_View):
    id: UUID
    name: str
    slug: str
    status: EnvironmentStatus
    primary_environment_id: UUID | None
    created_at: datetime
    updated_at: datetime
    state_version: int


class Environment(_View):
    id: UUID
    site_id: UUID
    name: str
    slug: str
    environment_type: EnvironmentType
    status: EnvironmentStatus
    node_id: UUID
    source_environment_id: UUID | None
    promotion_preset: PromotionPreset | None
    preview_url: str
    primary_domain_id: UUID | None
    current_release_id: UUID | None
    drift_status: DriftStatus
    drift_checked_at: datetime | None
    last_drift_check_id: UUID | None
    fastcgi_cache_enabled: bool
    redis_cache_enabled: bool
    created_at: datetime
    updated_at: datetime
    state_version: int
    current_release_health: Literal["unknown", "healthy", "unhealthy"]
    health_checked_at: datetime | None
    health_reason: str | None


class Backup(_View):
    id: UUID
    environment_id: UUID
    backup_scope: BackupScope
    status: Literal["pending", "running", "completed", "failed", "expired"]
    storage_type: Annotated[str, Field(json_schema_extra={"enum": ["s3"]})]
    storage_path: str | None
    retention_until: datetime | None
    checksum: str | None
    size_bytes: int | None
    created_at: datetime
    completed_at: datetime | None
    drilled_at: datetime | None
    drill_status: Literal["passed", "failed"] | None
    drill_error: str | None


class Domain(_View):
    id: UUID
    environment_id: UUID
    hostname: str
    tls_status: TlsStatus
    tls_issuer: str | None
    created_at: datetime
    updated_at: datetime


class Job(_View):
    id: UUID
    job_type: JobType
    status: JobStatus
    site_id: UUID | None
    environment_id: UUID | None
    node_id: UUID | None
    attempt_count: int
    max_attempts: int
    run_after: datetime
    locked_at: datetime | None
    locked_by: str | None
    started_at: datetime | None
    finished_at: datetime | None
    error_code: str | None
    error_message: str | None
    created_at: datetime
    updated_at: datetime


class JobDetails(Job):
    """With what came of it; None where it has not ended, or there is nothing to tell."""

    result: dict[str, Any] | None


class JobEvent(_View):
    number: int
    at: datetime
    kind: EventKind
    data: dict[str, Any]


class Metrics(_View):
    jobs_running: int
    jobs_queued: int
    nodes_active: int
    sites_total: int


class Node(_View):
    id: UUID
    name: str
    status: NodeStatus
    address: str
    environments: int
    observed_at: datetime | None
    unreachable_reason: str | None
    hold: str | None
    os: str | None
    versions: dict[str, str]
    memory_bytes: int | None
    disk_free_bytes: int | None
    disk_size_bytes: int | None


class ReportDelivery(_View):
    target: str
    status: Literal["pending", "sending", "sent", "failed", "uncertain", "superseded"]
    attempts: int
    next_attempt_at: datetime | None
    ended_at: datetime | None
    error: str | None
    changes: int


class DriftReportHead(ReportHead):
    """What a list tells of a report."""


class DriftReport(Report):
    deliveries: tuple[ReportDelivery, ...]


def site_view(current: CurrentState, site: SiteEntry) -> Site:
    """A site; its status and version also move with those of its environments."""
    environments = current.fleet.environments_by_site.get(site.slug, ())
    production = next((one for one in environments if one.manifest.spec.type is EnvironmentType.PRODUCTION), None)
    return Site(
        id=site.id,
        name=site.name,
        slug=site.slug,
        status=current.site_status(site.slug),
        primary_environment_id=production.id if production else None,
        **_changes(current, site.path, environments),
    )


def environment_view(current: CurrentState, environment: EnvironmentEntry) -> Environment:
    fleet, spec, drift = current.fleet, environment.manifest.spec, current.drift(environment.id)
    site, node, health = fleet.site_of(environment), fleet.node_of(environment), current.health(environment.id)
    return Environment(
        id=environment.id,
        # What no document defines has the id that a document at that path would have.
        site_id=site.id if site else id_of(f"sites/{environment.site}/site.yaml", Metadata()),
        node_id=node.id if node else id_of(f"nodes/{spec.node}.yaml", Metadata()),
        name=environment.name,
        slug=environment.slug,
        environment_type=spec.type,
        status=current.status_of(environment.id),
        source_environment_id=spec.source_environment,
        promotion_preset=spec.promotion_preset,
        preview_url=fleet.preview_url(environment),
        primary_domain_id=fleet.domain_id(environment, spec.domains[0]) if spec.domains else None,
        current_release_id=fleet.release_id(environment),
        drift_status=drift.status,
        drift_checked_at=drift.checked_at,
        last_drift_check_id=drift.check_id,
        fastcgi_cache_enabled=spec.cache.fastcgi,
        redis_cache_enabled=spec.cache.redis,
        **_changes(current, environment.path, (environment,)),
        current_release_health=health.found.health if health else "unknown",
        health_checked_at=health.checked_at if health else None,
        health_reason=health.found.reason if health else None,
    )


class _Changes(TypedDict):
    created_at: datetime
    updated_at: datetime
    state_version: int


def _changes(current: CurrentState, path: str, environments: Iterable[EnvironmentEntry]) -> _Changes:
    """When and how often the document or the statuses of these environments changed."""
    history = current.history(path)
    rows = [row for environment in environments if (row := current.status_row(environment.id))]
    first, last, commits = (history.created_at, history.updated_at, history.commits) if history else (EPOCH, EPOCH, 1)
    return {
        "created_at": first,
        "updated_at": max([last, *(row.changed_at for row in rows)]),
        "state_version": commits + sum(row.version for row in rows),
    }


def site_views(current: CurrentState, sites: Iterable[SiteEntry]) -> list[Site]:
    _ = current.statuses  # one query for all, instead of one each
    return [site_view(current, site) for site in sites]


def environment_views(current: CurrentState) -> list[Environment]:
    """Every environment of the fleet, in no order."""
    _ = current.statuses, current.drift_checks, current.healths
    return [environment_view(current, environment) for environment in current.fleet.environments.values()]


def node_views(current: CurrentState) -> list[Node]:
    """Every node, by name."""
    return [node_view(current, node) for node in sorted(current.fleet.nodes.values(), key=lambda node: node.slug)]


def held_names(found: Iterable[Waiting]) -> tuple[HeldName, ...]:
    return tuple(HeldName(kind=one.kind, name=one.name, count=one.count, due_at=one.due_at) for one in found)


def promotion_view(found: Previewed) -> Promotion:
    unmet = {"code": found.unmet.code, "message": found.unmet.message} if found.unmet else None
    preview = found.preview.model_dump() if found.preview else None
    return Promotion(
        environment_id=found.source_id,
        target_environment_id=found.target_id,
        unmet=PromotionRefusal.model_validate(unmet) if unmet else None,
        checked_at=found.checked_at,
        job_id=found.job_id,
        preview=PromotionPreview.model_validate(preview) if preview else None,
    )


def job_view(job: JobRow) -> Job:
    return Job.model_validate(job, from_attributes=True)


def job_details_view(job: JobRow) -> JobDetails:
    return JobDetails.model_validate(job, from_attributes=True)


def job_event_view(event: EventRow) -> JobEvent:
    return JobEvent.model_validate(event, from_attributes=True)


def node_view(current: CurrentState, node: NodeEntry) -> Node:
    """A node with the last that it answered, however long ago."""
    observation = current.observations.get(node.id)
    seen = observation.observed if observation else None
    unreachable = observation.unreachable if observation else None
    return Node(
        id=node.id,
        name=node.slug,
        status=current.node_status(node.id),
        address=node.manifest.spec.address,
        environments=len(current.fleet.environments_by_node.get(node.slug, ())),
        observed_at=seen.observed_at if seen else None,
        unreachable_reason=unreachable.reason if unreachable else None,
        hold=seen.hold if seen else None,
        os=f"{seen.os_id} {seen.os_version}".strip() if seen else None,
        versions=seen.versions if seen else {},
        memory_bytes=seen.memory_bytes if seen else None,
        disk_free_bytes=seen.disk_free_bytes if seen else None,
        disk_size_bytes=seen.disk_size_bytes if seen else None,
    )


def domain_view(domain: DeclaredDomain) -> Domain:
    return Domain.model_validate(domain, from_attributes=True)


def backup_view(backup: BackupRow) -> Backup:
    return Backup.model_validate(backup, from_attributes=True)


def accepted(response: Response, job_id: UUID) -> JobAccepted:
    """The body for accepted work; also says where to follow it."""
    response.headers["Location"] = f"/api/jobs/{job_id}"
    return JobAccepted(job_id=job_id)


SITES = TypeAdapter(list[Site])
JOBS = TypeAdapter(list[Job])
JOB_EVENTS = TypeAdapter(list[JobEvent])


def as_json(adapter: TypeAdapter[T], value: T) -> Response:
    """``value`` as JSON in one go; FastAPI would turn a long list into Python objects first."""
    return Response(adapter.dump_json(value), media_type="application/json")


def upload_view(upload: KeptUpload) -> Upload:
    return Upload(
        upload_id=upload.upload_id,
        sha256=upload.sha256,
        size_bytes=upload.size_bytes,
        source_ref=upload.source_ref,
    )


def drift_report_heads(records: Records) -> list[DriftReportHead]:
    """Of every report that is kept."""
    return [DriftReportHead.model_validate(head) for head in records.reports.heads(2 * KEPT)]


def drift_report_view(kept: StoredReport, deliveries: Iterable[Delivery]) -> DriftReport:
    """A report, and what became of it."""
    sent = [_delivery_view(delivery) for delivery in deliveries]
    return DriftReport.model_validate({**kept.report, "deliveries": sent})


def _delivery_view(delivery: Delivery) -> ReportDelivery:
    return ReportDelivery(
        target=delivery.name,
        status=delivery.status,
        attempts=delivery.attempts,
        next_attempt_at=delivery.next_attempt_at if delivery.status == "pending" else None,
        ended_at=delivery.ended_at,
        error=delivery.error,
        changes=len(delivery.changes),
    )
