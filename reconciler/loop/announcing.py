"""Tells the forge what became of its commits: a status for each that was taken over or held, a comment on its request.

In a thread of its own, since a forge may keep whoever asks it waiting. What is to be told is worked out from the plan
and the records at each look and kept in the database; each change of it is sent until the forge has taken it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from reconciler.core.announcing import CommitState, Kind, Target, Told, changed_targets, comment, told_of
from reconciler.core.errors import NotFound, TrueupError
from reconciler.core.fleet import Fleet
from reconciler.core.forge import Forge as Declared
from reconciler.core.jobs import JobStatus, JobType
from reconciler.core.plan import Answer
from reconciler.core.status import EnvironmentStatus
from reconciler.forges.model import Forge, ForgeError
from reconciler.forges.opening import forge_of
from reconciler.loop.circumstances import RECONCILING, latest
from reconciler.loop.looking import Looking
from reconciler.loop.tools import Tools
from reconciler.records.announcements import NO_REQUEST, Announcement
from reconciler.records.jobs import JobFilter
from reconciler.storage.secret_store import Secrets

log = structlog.get_logger()

LOOK_S, SLOW_LOOK_S = 3.0, 60.0
"""Seconds between looks, and between those at what was taken over longer than ``YOUNG`` ago."""
SHARE = 5
"""How much longer than a look it rests."""
YOUNG = timedelta(hours=1)
KEPT = timedelta(days=7)
"""How long a commit is followed."""
UNWANTED = timedelta(minutes=10)
"""How long one is kept where no forge is declared: the commit that declares it may be about to be read."""
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=10), timedelta(hours=1)
LATE = timedelta(minutes=1)
"""How long after a merge a forge may not know yet which request it was of."""
STOP_S = 35.0
_PLATFORM = "platform.yaml"


class Announcing:
    """Looks until ``stop``; ``leads`` says whether it is this process that does so."""

    def __init__(self, tools: Tools, clock: Callable[[], datetime]) -> None:
        self._tools = tools
        self._clock = clock
        self._records = tools.state.records
        self._secrets = Secrets(tools.settings.secrets)
        self._looking = Looking("announcing", STOP_S)
        self._began = 0.0
        self._slow: datetime | None = None

    def start(self, leads: Callable[[], bool]) -> None:
        self._looking.start(lambda: self._look(leads), self._rest)

    def stop(self) -> None:
        self._looking.stop()

    def wake(self) -> None:
        """There may be something to tell."""
        self._looking.wake()

    def _look(self, leads: Callable[[], bool]) -> None:
        self._began = time.monotonic()
        if leads():
            self.work()

    def _rest(self) -> None:
        # Of a large fleet a look takes its time, and most of that is left to those who work.
        self._looking.stopping.wait(min(SHARE * (time.monotonic() - self._began), SLOW_LOOK_S))
        self._looking.woken.wait(LOOK_S)

    def work(self) -> None:
        """Look at what may have changed, and tell it."""
        now = self._clock()
        rows = self._records.announcements.open()
        if not rows or not self._is_time(rows, now):
            return
        fleet = self._tools.state.fleet()
        declared = fleet.platform.spec.forge
        if declared is None:
            # A platform document that cannot be read, and was never, says nothing.
            if not any(stalled.path == _PLATFORM for stalled in fleet.stalled):
                self._records.announcements.prune(now - UNWANTED)
            return
        look = _Look(self._tools, fleet)
        for row in rows:
            if self._looking.stopping.is_set():
                return
            seen = self._seen(row, look)
            if seen is not None and seen.told is not None:
                self._tell(seen, seen.told, declared)
        self._records.announcements.prune(now - KEPT)

    def _is_time(self, rows: Sequence[Announcement], now: datetime) -> bool:
        """What has stood for long is looked at less often."""
        if any(now - row.taken_at < YOUNG or row.told is None for row in rows):
            return True
        if self._slow is not None and now - self._slow < timedelta(seconds=SLOW_LOOK_S):
            return False
        self._slow = now
        return True

    # What is to be told

    def _seen(self, row: Announcement, look: _Look) -> Announcement | None:
        """The row as it is to be by now; None: the commit is not taken over, and nothing is known of it."""
        upstream, announcements = self._tools.state.repository.upstream, self._records.announcements
        told, targets = row.held, row.targets
        if told is None:
            try:
                if not upstream.has(row.commit):
                    return None
                targets = self._targets(row.commit) if targets is None else targets
            except NotFound:
                return None
            told = look.told(row, targets)
        if (told, targets) != (row.told, row.targets):
            announcements.change(row.commit, told=told, targets=targets)
        return _with(row, told, targets)

    def _targets(self, commit: str) -> tuple[Target, ...]:
        state = self._tools.state
        before = state.repository.upstream.before(commit)
        if before is None:
            return ()
        fleets = [
            state.fleet_of(snapshot.revision, snapshot.documents)
            for snapshot in (state.repository.read(before), state.repository.read(commit))
        ]
        return changed_targets(*fleets)

    # Telling it

    def _tell(self, row: Announcement, told: Told, declared: Declared) -> None:
        """Whatever the forge has not taken yet, if it is time to try."""
        now = self._clock()
        if row.next_attempt_at > now:
            return
        if _line(row.sent) == _line(told) and not self._is_unsaid(row, told):
            self._close(row, told)
            return
        try:
            forge = forge_of(declared, self._secrets)
            if _line(row.sent) != _line(told):
                forge.set_status(row.commit, told.state, told.description, declared.dashboard)
                self._records.announcements.change(row.commit, sent=told, attempts=0, error=None)
                log.info("forge told", commit=row.commit[:12], state=told.state.value, description=told.description)
            self._comment(row, told, forge)
        except (ForgeError, TrueupError, OSError) as error:
            self._again(row, error)
            return
        self._records.announcements.change(row.commit, attempts=0, error=None)

    def _comment(self, row: Announcement, told: Told, forge: Forge) -> None:
        """Only what is settled is worth a comment."""
        if not self._is_unsaid(row, told):
            return
        number = row.request if row.request is not None else forge.request_of(row.commit) or NO_REQUEST
        now = self._clock()
        if number == NO_REQUEST and now - row.taken_at < LATE:
            self._records.announcements.change(row.commit, next_attempt_at=now + FIRST_WAIT)
            return
        body = comment(row.commit, told)
        if number != NO_REQUEST:
            forge.comment(number, f"<!-- trueup {row.commit} -->", body)
        self._records.announcements.change(row.commit, request=number, commented=_sha256(body))

    def _is_unsaid(self, row: Announcement, told: Told) -> bool:
        if told.state is CommitState.PENDING or row.request == NO_REQUEST:
            return False
        return row.commented != _sha256(comment(row.commit, told))

    def _close(self, row: Announcement, told: Told) -> None:
        """A success stays one."""
        if told.state is CommitState.SUCCESS:
            self._records.announcements.change(row.commit, is_open=False)

    def _again(self, row: Announcement, error: Exception) -> None:
        why = error.message if isinstance(error, TrueupError) else str(error)
        wait = waiting(row.attempts + 1)
        if isinstance(error, ForgeError) and error.wait_s is not None:
            wait = max(wait, timedelta(seconds=error.wait_s))
        self._records.announcements.change(
            row.commit, attempts=row.attempts + 1, next_attempt_at=self._clock() + wait, error=why
        )
        log.warning("forge not told", commit=row.commit[:12], reason=why, attempt=row.attempts + 1)


def waiting(attempt: int) -> timedelta:
    """How long after that attempt the next one follows."""
    return min(FIRST_WAIT * (1 << min(attempt - 1, 20)), LONGEST_WAIT)


def _line(told: Told | None) -> tuple[CommitState, str] | None:
    return (told.state, told.description) if told else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _with(row: Announcement, told: Told, targets: tuple[Target, ...] | None) -> Announcement:
    return replace(row, told=told, targets=targets)


@dataclass
class _Look:
    """What is known at one moment, read once for all commits; of nodes, only those that are asked for."""

    tools: Tools
    fleet: Fleet
    _answers: Mapping[str, Answer] | None = field(default=None, init=False)

    def told(self, row: Announcement, targets: tuple[Target, ...]) -> Told:
        if self._answers is None:
            self._answers = self.tools.remembered(self.fleet)
        nodes = self._nodes(targets)
        answers = {name: answer for name, answer in self._answers.items() if name in nodes}
        plan = self.tools.decide(self.fleet, answers)
        return told_of(targets, row.told.results if row.told else (), self.fleet, plan, _Known(self, row.taken_at))

    def _nodes(self, targets: Sequence[Target]) -> set[str]:
        names = {target.name for target in targets if target.kind is Kind.NODE}
        for target in targets:
            if target.kind is Kind.ENVIRONMENT and (found := self.fleet.environments.get(UUID(target.id))):
                names.add(found.manifest.spec.node)
        return names

    @property
    def answers(self) -> Mapping[str, Answer]:
        return self._answers or {}


class _Known:
    """What the records know of targets since a commit was taken over."""

    def __init__(self, look: _Look, since: datetime) -> None:
        self._look = look
        self._since = since
        self._records = look.tools.state.records

    def failure(self, target: Target) -> str | None:
        id_ = UUID(target.id)
        if target.kind is Kind.NODE:
            wanted = JobFilter(node_id=id_, job_types=frozenset({JobType.NODE_PROVISION}))
        else:
            wanted = JobFilter(environment_id=id_, job_types=RECONCILING)
        job = latest(self._records, wanted)
        if job is None or job.finished_at is None or job.finished_at < self._since:
            return None
        if job.status is JobStatus.CANCELLED:
            return f"Job {job.id} was cancelled."
        if job.status is not JobStatus.FAILED:
            return None
        first = (job.error_message or "").strip().partition("\n")[0]
        return f"{job.error_code}: {first}"

    def is_failed(self, environment_id: UUID) -> bool:
        row = self._records.statuses.get(environment_id)
        return row is not None and row.status == EnvironmentStatus.FAILED

    def unhealthy(self, environment_id: UUID) -> str | None:
        fleet = self._look.fleet
        environment = fleet.environments.get(environment_id)
        if environment is None:
            return None
        health = self._records.health.of(environment_id).get(fleet.release_id(environment))
        if health is None or health.health != "unhealthy" or health.checked_at < self._since:
            return None
        return "It was applied, and is unhealthy. See `trueup status`."

    def has_answered(self, node: str) -> bool:
        return node in self._look.answers
