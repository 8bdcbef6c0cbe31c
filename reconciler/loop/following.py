"""Keeps the store and the repository that it follows in step: fetch, judge, take over, push, again until both agree."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import structlog

from reconciler.core.announcing import held
from reconciler.core.entries import Document, PlatformEntry, parse
from reconciler.core.errors import Conflict, RecordsError, StoreError, TrueupError, UpstreamHeld, UpstreamUnreachable
from reconciler.core.manifests import PlatformSpec
from reconciler.loop.looking import Looking
from reconciler.operations import hooks
from reconciler.operations.redeclaring import Redeclaring
from reconciler.settings import Settings
from reconciler.state import State as Fleets
from reconciler.store import standing
from reconciler.store.remote import Link, Remote
from reconciler.store.standing import Standing, State
from reconciler.store.upstream import Upstream

log = structlog.get_logger()

ROUNDS = 12
"""How often one look tries to push before it leaves the rest to the next."""
STOP_S = 20.0
REST_S = 2.0
"""How long it rests after a look before a hook causes another: a flood of them is no flood of looks."""
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_PLATFORM = "platform.yaml"
_MOST_VERSIONS = 10_000


class Following:
    """Follows one upstream. Any process of the home may ask; one at a time does it."""

    def __init__(self, settings: Settings, state: Fleets, clock: Callable[[], datetime]) -> None:
        if settings.upstream is None:
            raise Conflict("This store follows no repository. Set TRUEUP_UPSTREAM.")
        self._path = settings.upstream_standing
        self._poll_s, self._store_poll_s = settings.upstream_poll, settings.store_poll_s
        self._state = state
        self._clock = clock
        self._looking = Looking("upstream", STOP_S)
        self._stopping = self._looking.stopping
        self._due, self._rested, self._heard = 0.0, 0.0, ""
        self._asked = settings.upstream_asked
        self._remote = Remote.parse(settings.upstream, settings.upstream_branch, settings.upstream_path)
        self._link = Link(state.repository.path, self._remote, self._stopping)
        self._redeclaring = Redeclaring(state, clock)
        self._announcements = state.records.announcements

    @property
    def upstream(self) -> Upstream:
        return self._state.repository.upstream

    def start(self, leads: Callable[[], bool], moved: Callable[[], None]) -> None:
        """Follow until ``stop``, in a thread of its own, since a remote may keep whoever asks it waiting.

        ``leads`` is asked whether it is this process that follows; ``moved`` is called when the store's branch moved.
        """
        self._looking.start(lambda: self._follow(leads, moved), self._rest)

    def stop(self) -> None:
        """End what waits for the remote, and the thread."""
        self._looking.stop()

    def wake(self) -> None:
        """Somebody asked for a look, or there may be something to push."""
        self._looking.wake()

    def _follow(self, leads: Callable[[], bool], moved: Callable[[], None]) -> None:
        asked = hooks.asked(self._asked)
        wanted = asked != self._heard and time.monotonic() >= self._rested
        if (time.monotonic() >= self._due or wanted or self.is_behind()) and leads():
            # What is asked from here on may mean what comes after this look.
            self._heard = asked
            before = self.upstream.head()
            self.look()
            self._due = time.monotonic() + self._poll_s * random.uniform(0.8, 1.2)  # noqa: S311 (no secret)
            self._rested = time.monotonic() + REST_S
            if self.upstream.head() != before:
                moved()

    def _rest(self) -> None:
        self._stopping.wait(_PAUSE_S)
        waits = hooks.asked(self._asked) != self._heard
        rest_s = max(0.0, self._rested - time.monotonic())
        self._looking.woken.wait(min(rest_s, self._store_poll_s) if waits else self._store_poll_s)

    def is_behind(self) -> bool:
        """Whether there is something to push and nothing known that stands in its way."""
        before = standing.read(self._path)
        return (before is None or before.is_well) and self.upstream.head() != self.upstream.accepted()

    def look(self) -> Standing:
        """Bring both in step as far as they can be; how it stands then. Never raises for what upstream does."""
        with self._alone() as mine:
            if not mine:
                return standing.read(self._path) or self._standing(State.AHEAD)
            try:
                found = self._round()
                self._announcements.release()
            except UpstreamUnreachable as error:
                found = self._standing(State.UNREACHABLE, message=error.message)
            except UpstreamHeld as error:
                found = self._standing(State.HELD, error.reason, error.message)
                self._announce_held(error)
            except TrueupError as error:
                found = self._standing(State.HELD, error.code, error.message)
            # What was interrupted by our own end says nothing of upstream.
            return found if self._stopping.is_set() else self._note(found)

    def take_over(self, commit: str) -> Standing:
        """Accept what upstream has although it is no continuation, as long as it is at ``commit``.

        Raises:
            Conflict: it isn't, or somebody else is looking just now.
            UpstreamUnreachable: it does not answer.
            UpstreamHeld: it is empty or not signed as it must be.
        """
        with self._alone() as mine:
            if not mine:
                raise Conflict("Upstream is being looked at just now. Try again.")
            remote = self._fetched()
            if remote != commit:
                raise Conflict(
                    f"Upstream is at {remote or 'nothing'}, not at {commit}. Nothing was changed. Look again."
                )
            self.upstream.refuse_unfit(remote)
            self._refuse_unsigned(remote)
            self._announce(remote)
            self._redeclaring.settle(self.upstream.accept(remote, self._redeclaring.on, anyhow=True))
        return self.look()

    def _round(self) -> Standing:
        self.upstream.clear()
        self._redeclaring.straighten()
        seen: str | None = None
        for number in range(ROUNDS):
            remote = self._fetched(moved=number > 0)
            if remote is not None:
                self._take(remote)
            else:
                self._refuse_missing()
            head = self.upstream.head()
            if head == remote:
                return self._standing(State.IN_STEP)
            refusal = self._link.push(head)
            if refusal is None:
                self.upstream.pushed(head)
                if self.upstream.head() == head:
                    return self._standing(State.IN_STEP)
            elif remote == seen and number > 1:
                # Upstream stayed where it was, so it was no race that we lost.
                return self._standing(State.REFUSED, message=self._refused(refusal))
            seen = remote if refusal else None
            self._pause(number)
        return self._standing(State.AHEAD)

    def _fetched(self, *, moved: bool = False) -> str | None:
        """The commit that upstream is at, with all its objects here. ``moved``: a lost race, so that time counts."""
        if moved and self.upstream.fetched() is not None:
            self._link.fetch()
            return self.upstream.fetched()
        remote = self._link.head()
        if remote is not None and remote != self.upstream.fetched():
            self._link.fetch()
            return self.upstream.fetched()
        return remote

    def _take(self, remote: str) -> None:
        if remote == self.upstream.accepted():
            if self.upstream.has(remote):
                return
        else:
            self.upstream.judge(remote)
            self._refuse_unsigned(remote)
            self._announce(remote)
        before = self.upstream.head()
        self._redeclaring.settle(self.upstream.accept(remote, self._redeclaring.on))
        if self.upstream.head() != before:
            log.info("upstream taken over", commit=remote[:12])

    def _announce(self, remote: str) -> None:
        """Note what is about to be taken over, before it is: a crash in between loses nothing that way."""
        if incoming := self.upstream.incoming(remote):
            self._announcements.take(incoming, self._clock())

    def _announce_held(self, error: UpstreamHeld) -> None:
        fetched = self.upstream.fetched()
        if fetched is None or error.reason == "branch-missing":
            return
        try:
            self._announcements.hold(fetched, held(error.reason, error.message), self._clock())
        except RecordsError as trouble:
            log.error("what is held is not told", error=trouble.message)

    def _refuse_missing(self) -> None:
        """A branch that isn't there is made only in a repository that is empty."""
        if self.upstream.accepted() is not None:
            raise UpstreamHeld(
                "branch-missing",
                f"{self._remote} has no such branch any more. Nothing was applied. Push it there again, or correct "
                "TRUEUP_UPSTREAM_BRANCH.",
            )
        if others := self._link.branches():
            raise UpstreamHeld(
                "branch-missing",
                f"{self._remote} has no such branch, but {', '.join(others)}. Nothing was pushed. Correct "
                "TRUEUP_UPSTREAM_BRANCH, or make that branch there.",
            )

    def _refuse_unsigned(self, remote: str) -> None:
        if signers := self._signers():
            self.upstream.refuse_unsigned(remote, signers)

    def _signers(self) -> tuple[str, ...]:
        """As the platform document in force names them, or its last version that could be read."""
        fleet = self._state.fleet()
        spec = fleet.platform.spec
        if spec == PlatformSpec() and any(stalled.path == _PLATFORM for stalled in fleet.stalled):
            for version in self._state.repository.earlier(_PLATFORM, _MOST_VERSIONS):
                entry = parse(version) if isinstance(version, Document) else None
                if isinstance(entry, PlatformEntry):
                    return entry.manifest.spec.allowed_signers
        return spec.allowed_signers

    def _refused(self, refusal: str) -> str:
        return (
            f"{self._remote} does not take what is pushed: {refusal}. Work goes on here. Allow the control plane to "
            "push to that branch."
        )

    def _pause(self, number: int) -> None:
        longest = min(_PAUSE_S * 2**number, _LONGEST_PAUSE_S)
        self._stopping.wait(random.uniform(0, longest))  # noqa: S311 (to be out of step with others, not to be secret)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether nobody else follows at this moment; the lock ends with the process that has it."""
        path = self._state.repository.path / "trueup.follow"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"The lock {path} cannot be opened: {error.strerror}. Nothing was changed.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)

    def _standing(self, state: State, reason: str = "", message: str = "") -> Standing:
        now = self._clock()
        fetched = self.upstream.fetched()
        return Standing(
            state=state,
            remote=str(self._remote),
            reason=reason,
            message=message,
            since=now,
            checked_at=now,
            upstream=self.upstream.accepted() if state is State.IN_STEP else fetched,
        )

    def _note(self, found: Standing) -> Standing:
        before = standing.read(self._path)
        now = standing.after(before, found)
        standing.write(self._path, now)
        if now.message and (before is None or before.message != now.message):
            log.error("not in step with upstream", state=now.state.value, reason=now.reason, message=now.message)
        elif now.is_well and before is not None and not before.is_well:
            log.info("in step with upstream again", state=now.state.value)
        return now
