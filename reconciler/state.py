"""Desired state and what is remembered of each resource, read together: what a GET answers from."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from uuid import UUID

from sqlalchemy import Engine

from reconciler.core.entries import Document, Entry, Parsed, Stalled, parse
from reconciler.core.errors import NotFound
from reconciler.core.fleet import Fleet, assemble
from reconciler.core.jobs import JobStatus, JobType
from reconciler.core.observed import ObservedEnvironment
from reconciler.core.plan import Answer
from reconciler.core.status import (
    BUSY,
    DriftStatus,
    EnvironmentStatus,
    NodeStatus,
    node_status,
    site_status,
    summarize,
)
from reconciler.records.admins import Admins
from reconciler.records.announcements import Announcements
from reconciler.records.audit import Audit
from reconciler.records.backups import Backups
from reconciler.records.deliveries import Deliveries
from reconciler.records.drift import DriftCheck, DriftChecks
from reconciler.records.events import Events
from reconciler.records.health import Health, ReleaseHealth
from reconciler.records.idempotency import IdempotencyKeys
from reconciler.records.jobs import JobFilter, Jobs
from reconciler.records.leases import Leases
from reconciler.records.login_attempts import LoginAttempts
from reconciler.records.node_logins import NodeLogins
from reconciler.records.observations import Observation, Observations
from reconciler.records.recommitting import Recommitting
from reconciler.records.reports import DriftReports
from reconciler.records.sessions import Sessions
from reconciler.records.status import EnvironmentStatus as StatusRow
from reconciler.records.status import EnvironmentStatuses
from reconciler.records.tokens import Tokens
from reconciler.store.repository import PathHistory, Repository


class Records:
    """Every table's access, on one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.jobs = Jobs(engine)
        self.admins = Admins(engine)
        self.sessions = Sessions(engine)
        self.login_attempts = LoginAttempts(engine)
        self.audit = Audit(engine)
        self.observations = Observations(engine)
        self.statuses = EnvironmentStatuses(engine)
        self.drift_checks = DriftChecks(engine)
        self.health = Health(engine)
        self.backups = Backups(engine)
        self.leases = Leases(engine)
        self.events = Events(engine)
        self.idempotency = IdempotencyKeys(engine)
        self.tokens = Tokens(engine)
        self.recommitting = Recommitting(engine)
        self.reports = DriftReports(engine)
        self.deliveries = Deliveries(engine)
        self.announcements = Announcements(engine)
        self.node_logins = NodeLogins(engine)

    def status_of(self, row: StatusRow) -> EnvironmentStatus:
        """As the row says; where the job that made it busy has ended, as that leaves it: its worker notes it later."""
        status = EnvironmentStatus(row.status)
        if status not in BUSY or row.job_id is None:
            return status
        try:
            job = self.jobs.get(row.job_id)
        except NotFound:
            return status
        if job.finished_at is None or job.started_at is None:
            return status
        return summarize(JobType(job.job_type), job.status, status)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Drift:
    """What the last drift check of an environment said."""

    status: DriftStatus
    checked_at: datetime | None = None
    check_id: UUID | None = None


class CurrentState:
    """The fleet at one revision with the records of this moment, each read when first asked for."""

    def __init__(self, fleet: Fleet, repository: Repository, records: Records) -> None:
        self.fleet = fleet
        self._repository = repository
        self._history = repository.history(fleet.revision)
        self._records = records

    @cached_property
    def statuses(self) -> Mapping[UUID, StatusRow]:
        return self._records.statuses.all()

    @cached_property
    def drift_checks(self) -> Mapping[UUID, DriftCheck]:
        return self._records.drift_checks.latest_all()

    @cached_property
    def healths(self) -> Mapping[tuple[UUID, UUID], ReleaseHealth]:
        return self._records.health.all()

    @cached_property
    def observations(self) -> Mapping[UUID, Observation]:
        return self._records.observations.all()

    @cached_property
    def provisioning(self) -> frozenset[UUID]:
        """Nodes that a job is bringing to the baseline."""
        wanted = JobFilter(
            statuses=frozenset({JobStatus.QUEUED, JobStatus.RUNNING}), job_types=frozenset({"node-provision"})
        )
        return frozenset(job.node_id for job in self._records.jobs.page(wanted, limit=1000).jobs if job.node_id)

    def status_row(self, environment_id: UUID) -> StatusRow | None:
        if "statuses" in self.__dict__:
            return self.statuses.get(environment_id)
        return self._records.statuses.get(environment_id)

    def status_of(self, environment_id: UUID) -> EnvironmentStatus:
        row = self.status_row(environment_id)
        return self._records.status_of(row) if row else EnvironmentStatus.ACTIVE

    def site_status(self, site_slug: str) -> EnvironmentStatus:
        environments = self.fleet.environments_by_site.get(site_slug, ())
        return site_status(self.status_of(environment.id) for environment in environments)

    def node_status(self, node_id: UUID) -> NodeStatus:
        node, observation = self.fleet.node(node_id), self.observations.get(node_id)
        return node_status(node.manifest.spec.state, answer_of(observation), provisioning=node_id in self.provisioning)

    def history(self, path: str) -> PathHistory | None:
        """How often and when the document at ``path`` was committed."""
        return self._history.get(path)

    def named_since(self, path: str, word: str) -> datetime:
        """Since when the document at ``path`` names ``word``."""
        since = self._repository.named_since(path, word, self.fleet.revision)
        history = self.history(path)
        return since or (history.updated_at if history else EPOCH)

    def drift(self, environment_id: UUID) -> Drift:
        if "drift_checks" in self.__dict__:
            check = self.drift_checks.get(environment_id)
        else:
            check = self._records.drift_checks.latest(environment_id)
        if check is None:
            return Drift(DriftStatus.UNKNOWN)
        return Drift(DriftStatus(check.status), check.created_at, check.id)

    def seen(self, environment_id: UUID) -> ObservedEnvironment | None:
        """What its node said of it last; None: nothing yet."""
        node = self.fleet.node_of(self.fleet.environment(environment_id))
        observation = self.observations.get(node.id) if node else None
        observed = observation.observed if observation else None
        return observed.environments.get(str(environment_id)) if observed else None

    def health(self, environment_id: UUID) -> ReleaseHealth | None:
        """What is known of the declared release's health; None: nobody has looked."""
        release_id = self.fleet.release_id(self.fleet.environment(environment_id))
        if "healths" in self.__dict__:
            return self.healths.get((environment_id, release_id))
        return self._records.health.of(environment_id).get(release_id)


def answer_of(observation: Observation | None) -> Answer | None:
    """What the last look at a node found; None: nobody ever looked."""
    if observation is None:
        return None
    return observation.unreachable or observation.observed


_MOST_ASKED = 20
"""Documents whose history is looked through when a fleet is first read."""
_VERSIONS = 5
"""How far back a shape that is of use is looked for."""


class State:
    """Reads the store at its head; parses only what changed since the last reading."""

    def __init__(self, repository: Repository, records: Records) -> None:
        self.repository = repository
        self.records = records
        self._lock = threading.Lock()
        self._fleet: Fleet | None = None
        self._fitting: dict[str, Parsed] = {}
        self._parsed: dict[str, tuple[Document | Stalled, Parsed | Stalled | None]] = {}

    def fleet(self) -> Fleet:
        """Desired state at the head of the store."""
        head = self.repository.head()
        with self._lock:
            if self._fleet is None or self._fleet.revision != head:
                self._fleet = self._assemble(head, self.repository.read(head).documents)
            return self._fleet

    def current(self) -> CurrentState:
        fleet = self.fleet()
        return CurrentState(fleet, self.repository, self.records)

    def fleet_of(self, revision: str, documents: Mapping[str, Document | Stalled]) -> Fleet:
        """The fleet of documents that are not, or not yet, the head's."""
        with self._lock:
            if self._fleet is not None and self._fleet.revision == revision:
                return self._fleet
            return self._assemble(revision, documents, keep=False)

    def _assemble(self, revision: str, documents: Mapping[str, Document | Stalled], *, keep: bool = True) -> Fleet:
        parsed = {path: (document, self._parse(path, document)) for path, document in documents.items()}
        entries = {path: entry for path, (_, entry) in parsed.items()}
        fleet = self._with_last_fitting(revision, entries)
        if keep:
            self._parsed = parsed
            whole: tuple[Parsed, ...] = (*fleet.nodes.values(), *fleet.sites.values(), *fleet.environments.values())
            self._fitting |= {entry.path: entry for entry in whole if not entry.stalled}
        return fleet

    def _with_last_fitting(self, revision: str, entries: dict[str, Parsed | Stalled | None]) -> Fleet:
        """The fleet in which a document that doesn't fit the others keeps the shape in which it last did.

        Of two that clash, so, only the one that was changed is stalled.
        """
        fleet = assemble(revision, entries.values())
        misfits = _misfits(fleet, entries)
        if not misfits:
            return fleet
        # Nothing is remembered at the start; then the store's history is asked, within bounds.
        asked = list(misfits)[:_MOST_ASKED] if self._fleet is None else []
        earlier = {path: _readable(self.repository.earlier(path, _VERSIONS)) for path in asked}
        trial = {**entries, **{p: replace(e, stalled=None) for p in misfits if (e := self._fitting.get(p))}}
        for _ in range(_VERSIONS + 1):
            left = _misfits(assemble(revision, trial.values()), trial)
            older = {path: good for path in left if (good := next(earlier.get(path, iter(())), None))}
            if not older:
                break
            trial |= older
        fitting = {path: trial[path] for path in misfits if path not in left and trial[path] != entries[path]}
        kept = {path: replace(good, stalled=misfits[path]) for path, good in fitting.items() if isinstance(good, Entry)}
        return assemble(revision, {**entries, **kept}.values())

    def _parse(self, path: str, document: Document | Stalled) -> Parsed | Stalled | None:
        known = self._parsed.get(path)
        # The repository gives the same object for the same blob.
        if known is not None and known[0] is document:
            return known[1]
        entry = document if isinstance(document, Stalled) else parse(document)
        if isinstance(entry, Stalled):
            return self._last_good(path, entry)
        return entry

    def _last_good(self, path: str, stalled: Stalled) -> Parsed | Stalled:
        """The document's last readable version, marked as stalled: a typing error must not make a site vanish."""
        known = self._parsed.get(path)
        if known is not None:
            good = known[1] if isinstance(known[1], Entry) else None
        else:
            good = next(_readable(self.repository.earlier(path, _VERSIONS)), None)
        return replace(good, stalled=stalled) if good else stalled


def _readable(versions: Iterable[Document | Stalled]) -> Iterator[Parsed]:
    for version in versions:
        entry = version if isinstance(version, Stalled) else parse(version)
        if entry is not None and not isinstance(entry, Stalled):
            yield entry


def _misfits(fleet: Fleet, entries: Mapping[str, Parsed | Stalled | None]) -> dict[str, Stalled]:
    """The documents that are well by themselves and stalled because of the others."""
    found = {stalled.path: stalled for stalled in fleet.stalled}
    return {p: s for p, s in found.items() if isinstance(entry := entries[p], Entry) and entry.stalled is None}
