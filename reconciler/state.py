"""Desired state and what is remembered of each resource, read together: what a GET answers from."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from uuid import UUID

from sqlalchemy import Engine

from reconciler.core.fleet import Document, Entry, Fleet, Parsed, Stalled, assemble, parse
from reconciler.core.plan import Answer
from reconciler.core.status import DriftStatus, EnvironmentStatus, NodeStatus, node_status, site_status
from reconciler.records.admins import Admins
from reconciler.records.audit import Audit
from reconciler.records.drift import DriftCheck, DriftChecks
from reconciler.records.jobs import JobFilter, Jobs, JobStatus
from reconciler.records.leases import Leases
from reconciler.records.login_attempts import LoginAttempts
from reconciler.records.observations import Observation, Observations
from reconciler.records.sessions import Sessions
from reconciler.records.status import EnvironmentStatus as StatusRow
from reconciler.records.status import EnvironmentStatuses
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
        self.leases = Leases(engine)


@dataclass(frozen=True)
class Drift:
    """What the last drift check of an environment said."""

    status: DriftStatus
    checked_at: datetime | None = None
    check_id: UUID | None = None


class CurrentState:
    """The fleet at one revision with the records of this moment, each read when first asked for."""

    def __init__(self, fleet: Fleet, history: Mapping[str, PathHistory], records: Records) -> None:
        self.fleet = fleet
        self._history = history
        self._records = records

    @cached_property
    def statuses(self) -> Mapping[UUID, StatusRow]:
        return self._records.statuses.all()

    @cached_property
    def drift_checks(self) -> Mapping[UUID, DriftCheck]:
        return self._records.drift_checks.latest_all()

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
        return EnvironmentStatus(row.status) if row else EnvironmentStatus.ACTIVE

    def site_status(self, site_slug: str) -> EnvironmentStatus:
        environments = self.fleet.environments_by_site.get(site_slug, ())
        return site_status(self.status_of(environment.id) for environment in environments)

    def node_status(self, node_id: UUID) -> NodeStatus:
        node, observation = self.fleet.node(node_id), self.observations.get(node_id)
        return node_status(node.manifest.spec.state, answer_of(observation), provisioning=node_id in self.provisioning)

    def history(self, path: str) -> PathHistory | None:
        """How often and when the document at ``path`` was committed."""
        return self._history.get(path)

    def drift(self, environment_id: UUID) -> Drift:
        if "drift_checks" in self.__dict__:
            check = self.drift_checks.get(environment_id)
        else:
            check = self._records.drift_checks.latest(environment_id)
        if check is None:
            return Drift(DriftStatus.UNKNOWN)
        return Drift(DriftStatus(check.status), check.created_at, check.id)


def answer_of(observation: Observation | None) -> Answer | None:
    """What the last look at a node found; None: nobody ever looked."""
    if observation is None:
        return None
    return observation.unreachable or observation.observed


class State:
    """Reads the store at its head; parses only what changed since the last reading."""

    def __init__(self, repository: Repository, records: Records) -> None:
        self.repository = repository
        self.records = records
        self._lock = threading.Lock()
        self._fleet: Fleet | None = None
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
        return CurrentState(fleet, self.repository.history(fleet.revision), self.records)

    def fleet_of(self, revision: str, documents: Mapping[str, Document | Stalled]) -> Fleet:
        """The fleet of documents that are not, or not yet, the head's."""
        with self._lock:
            if self._fleet is not None and self._fleet.revision == revision:
                return self._fleet
            return self._assemble(revision, documents, keep=False)

    def _assemble(self, revision: str, documents: Mapping[str, Document | Stalled], *, keep: bool = True) -> Fleet:
        parsed = {path: (document, self._parse(path, document)) for path, document in documents.items()}
        if keep:
            self._parsed = parsed
        return assemble(revision, [entry for _, entry in parsed.values()])

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
        if known is not None and isinstance(known[1], Entry):
            return replace(known[1], stalled=stalled)
        return stalled
