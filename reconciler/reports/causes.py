"""Where a difference comes from, as far as records tell: a ladder from what is certain to what is likely.

Magic logins are in the audit log, playbooks run by hand are jobs, and whom sshd let in is in the node's journal;
somebody who logs in with a WordPress password is in none of them. So a login in the window is evidence,
and its absence is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.core.changes import Cause
from reconciler.core.observed import Applied, SshLogin
from reconciler.reports.model import Origin

WORDPRESS_SIDE = ("wordpress core", "core ", "release ", "uploads ", "content ", "options.")
"""Fields that somebody in wp-admin can have changed."""
_PLAIN = {
    Cause.MISSING: Origin.MISSING,
    Cause.DESIRED_MOVED: Origin.DESIRED_MOVED,
    Cause.UPGRADED: Origin.UPGRADED,
    Cause.UNFINISHED: Origin.UNFINISHED,
    Cause.SERVICE_STOPPED: Origin.SERVICE,
}


@dataclass(frozen=True)
class Login:
    """A magic login that was given out."""

    at: datetime
    who: str


@dataclass(frozen=True)
class RunByHand:
    """A playbook that somebody ran by hand, as the control plane recorded it."""

    job: str
    who: str
    playbook: str
    began: datetime
    ended: datetime | None
    """None: it still runs."""

    def spans(self, moment: datetime) -> bool:
        return self.began <= moment and (self.ended is None or moment <= self.ended)

    @property
    def told(self) -> str:
        return f"{self.who} ran {self.playbook} by hand {told(self.began)} (job {self.job})"


@dataclass(frozen=True)
class Window:
    """When a difference came: after ``well_at`` (None: nobody knows), and not after ``since``."""

    well_at: datetime | None
    since: datetime

    def has(self, moment: datetime) -> bool:
        return moment <= self.since and (self.well_at is None or moment > self.well_at)

    def touches(self, run: RunByHand) -> bool:
        return run.began <= self.since and (self.well_at is None or run.ended is None or run.ended > self.well_at)


@dataclass(frozen=True)
class Evidence:
    """What is known of the environment or node beside the difference, that may tell its cause."""

    applied: Applied | None
    committed_at: datetime | None
    """When its document, or the platform's, last changed."""
    logins: Sequence[Login] = ()
    ssh: Sequence[SshLogin] = ()
    """On its node."""
    runs: Sequence[RunByHand] = ()
    """On it, or on its node."""
    versions: tuple[str, str] | None = None
    """WordPress as declared and as found, where the two differ."""


def origin_of(field: str, cause: str, window: Window, known: Evidence) -> tuple[Origin, str | None]:
    """What a difference comes from, and what tells so."""
    if cause in {Cause.DESIRED_MOVED, Cause.UPGRADED} and (by_hand := _operator(known)):
        return Origin.OPERATOR, by_hand
    if cause == Cause.DESIRED_MOVED and known.committed_at:
        return Origin.DESIRED_MOVED, f"Committed {told(known.committed_at)}; not applied yet."
    if cause in _PLAIN:
        return _PLAIN[Cause(cause)], None
    return _touched(field, window, known)


def _touched(field: str, window: Window, known: Evidence) -> tuple[Origin, str | None]:
    """What somebody or something changed on the node."""
    if field.startswith(("wordpress core", "core ")) and (updated := _updated(known.versions)):
        return Origin.WORDPRESS_UPDATE, updated
    session = _session(window, known.logins) if field.startswith(WORDPRESS_SIDE) else None
    if by_hand := _by_hand(window, known.runs):
        return Origin.OPERATOR, f"{by_hand} Besides, {session}" if session else by_hand
    shell = _shell(window, known.ssh)
    if session:
        return Origin.LOGIN, f"{session} Besides, {shell}" if shell else session
    if field.startswith("content "):
        return Origin.CONTENT, None
    if shell:
        return Origin.SSH, shell
    return Origin.UNKNOWN, None


def _operator(known: Evidence) -> str | None:
    """A playbook that somebody ran by hand, if that is the last that was applied."""
    applied = known.applied
    if applied is None or applied.applied_by is None or applied.applied_by.operator is None:
        return None
    if known.committed_at and known.committed_at > applied.applied_at:
        return None
    for run in known.runs:
        if run.spans(applied.applied_at):
            return f"{run.told}."
    return f"{applied.applied_by.operator} ran a playbook by hand {told(applied.applied_at)}, says the node's manifest."


def _by_hand(window: Window, runs: Sequence[RunByHand]) -> str | None:
    """A playbook that somebody ran by hand while the difference came: it may not be one of ours."""
    within = sorted((run for run in runs if window.touches(run)), key=lambda run: run.began)
    return f"{within[-1].told}{_more(within)}." if within else None


def _updated(versions: tuple[str, str] | None) -> str | None:
    """A minor release later than the declared one: WordPress installs those by itself."""
    if versions is None:
        return None
    declared, found = (tuple(map(int, re.findall(r"\d+", version))) for version in versions)
    if found[:2] != declared[:2] or found <= declared:
        return None
    return f"WordPress went from {versions[0]} to {versions[1]}: a minor release, which it installs by itself."


def _session(window: Window, logins: Sequence[Login]) -> str | None:
    within = sorted((login for login in logins if window.has(login.at)), key=lambda login: login.at)
    if not within:
        return None
    return f"Magic login by {within[-1].who} {told(within[-1].at)}{_more(within)}, says the audit log."


def _shell(window: Window, logins: Sequence[SshLogin]) -> str | None:
    within = sorted((login for login in logins if window.has(login.at)), key=lambda login: login.at)
    if not within:
        return None
    last = within[-1]
    key = f" with the key {last.key[:19]}" if last.key else ""
    who = f"{last.user} logged in by ssh from {last.address}{key} {told(last.at)}"
    return f"{who}{_more(within)}, says the node's journal."


def _more(logins: Sequence[object]) -> str:
    return f", and {len(logins) - 1} more" if len(logins) > 1 else ""


def told(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
