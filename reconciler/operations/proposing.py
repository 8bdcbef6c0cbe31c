"""An adoption as a branch of the followed repository: whoever merges it makes what was changed on the node desired.

The same finding on the same document gives the same branch, so that asking again makes no second one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid4, uuid5

import structlog

from reconciler.core.changes import changed_code
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict, TrueupError, UpstreamUnreachable
from reconciler.core.fleet import Fleet
from reconciler.core.forge import Forge as Declared
from reconciler.core.forge import ForgeKind
from reconciler.core.intents import Adopt, AdoptOptions, Edit, evaluate
from reconciler.core.options import FIELD, changed_options, shown
from reconciler.core.review.views import code
from reconciler.core.status import EnvironmentStatus
from reconciler.forges.model import ForgeError
from reconciler.forges.opening import forge_of
from reconciler.operations.declaring import Actor
from reconciler.operations.options import adoption
from reconciler.operations.preconditions import refuse_moved
from reconciler.records.audit import Entry
from reconciler.settings import Settings
from reconciler.state import State
from reconciler.storage.secret_store import Secrets
from reconciler.store import standing
from reconciler.store.remote import Link, Remote
from reconciler.store.repository import Author, Snapshot

log = structlog.get_logger()

PATIENCE_S = 30.0
"""How long the repository may take for each thing that is asked of it."""
_MOST_SHOWN = 50


@dataclass(frozen=True)
class Proposal:
    """A branch that waits to be merged. ``note`` says what is left to do, in words."""

    branch: str
    base: str
    commit: str
    release_id: UUID | None
    """None: nothing but options changed, so there is no new release."""
    url: str | None
    note: str


def propose_adoption(environment_id: UUID, state: State, settings: Settings, actor: Actor, now: datetime) -> Proposal:
    """Push a branch whose merge declares what was changed on the node, and open a request where a forge is declared.

    Raises:
        Conflict: the store follows no repository or is not in step with it, the last drift check found nothing to
            adopt, or the repository does not answer or does not take the branch.
    """
    fleet = state.fleet()
    environment = fleet.environment(environment_id)
    refuse_moved(actor.terms.precondition, fleet, state)
    remote = _remote(settings, state)
    intent = adoption(environment_id, state, uuid4)
    base = _base(environment, state)
    found = _found(environment_id, state)
    id_ = _id(environment, base, found, intent, fleet, state)
    branch = f"trueup/adopt-{environment.site}-{environment.slug}-{id_.hex[:8]}"
    release_id = id_ if isinstance(intent, Adopt) else None
    if isinstance(intent, Adopt):
        intent = intent.model_copy(update={"release_id": id_})
    try:
        commit = _pushed(intent, base, branch, remote, state, actor, now)
    except UpstreamUnreachable as error:
        raise Conflict(f"{error.message.rstrip('.')}. Try again: it is the same branch.") from error
    url, note = _request(environment, branch, remote, found, actor, fleet.platform.spec.forge, settings)
    log.info("adoption proposed", environment=environment.key, branch=branch, request=url)
    entry = Entry(
        who=actor.email,
        source=actor.source,
        operation="drift-adopt-branch",
        outcome="accepted",
        environment_id=environment_id,
        summary={"branch": branch, "commit": commit, "request": url},
    )
    state.records.audit.append(entry, now)
    return Proposal(branch, remote.branch, commit, release_id, url, note)


def _remote(settings: Settings, state: State) -> Remote:
    if settings.upstream is None:
        raise Conflict("This store follows no repository, so there is none to make a branch in. Adopt with a commit.")
    found = standing.read(settings.upstream_standing)
    if found is None or found.state is standing.State.HELD or state.repository.upstream.accepted() is None:
        raise Conflict("The store is not in step with the repository that it follows. See `trueup upstream status`.")
    return Remote.parse(settings.upstream, settings.upstream_branch, settings.upstream_path)


def _base(environment: EnvironmentEntry, state: State) -> Snapshot:
    """What upstream has, as far as this store took it over, with the document as it is here."""
    base = state.repository.read(state.repository.upstream.accepted())
    head = state.repository.read()
    if base.entries.get(environment.path) != head.entries.get(environment.path):
        raise Conflict(
            f"{environment.path} has changes that are not pushed yet. Run `trueup upstream sync`, then try again."
        )
    return base


def _found(environment_id: UUID, state: State) -> list[str]:
    """What the last drift check found that can be adopted, in words: paths, and options with what they are."""
    check = state.records.drift_checks.latest(environment_id)
    if check is None:
        return []
    options = sorted(changed_options(check.differences).items())
    return [*sorted(changed_code(check.differences)), *(f"{FIELD}{name}: {shown(value)}" for name, value in options)]


def _id(
    environment: EnvironmentEntry,
    base: Snapshot,
    found: Sequence[str],
    intent: Adopt | AdoptOptions,
    fleet: Fleet,
    state: State,
) -> UUID:
    """Of the same finding on the same document the same; of one that was reverted meanwhile another."""
    history = state.repository.history(base.revision).get(environment.path)
    values = [json.dumps([name, value]) for name, value in sorted(intent.options.items())]
    said = [str(fleet.release_id(environment)), history.last if history else "", *found, *values]
    return uuid5(environment.id, "\n".join(["adopt", *said]))


def _pushed(
    intent: Adopt | AdoptOptions, base: Snapshot, branch: str, remote: Remote, state: State, actor: Actor, now: datetime
) -> str:
    """The commit that the branch is at there; made and pushed where it is not there yet."""
    link = Link(state.repository.path, replace(remote, branch=branch), most_s=PATIENCE_S)
    if there := link.head():
        return there

    def edit(snapshot: Snapshot) -> Edit:
        fleet = state.fleet_of(snapshot.revision, snapshot.documents)
        rows = state.records.statuses.all()
        return evaluate(intent, fleet, {id_: EnvironmentStatus(row.status) for id_, row in rows.items()}, now)

    commit = state.repository.upstream.propose(edit, Author(actor.name, actor.email), base, int(time.time()))
    if refusal := link.push(commit):
        raise Conflict(f"{link.remote} does not take the branch: {refusal}. Allow the control plane to push it.")
    return commit


def _request(
    environment: EnvironmentEntry,
    branch: str,
    remote: Remote,
    found: Sequence[str],
    actor: Actor,
    declared: Declared | None,
    settings: Settings,
) -> tuple[str | None, str]:
    """The address of the request, and what is left to do."""
    by_hand = f"Open a request that merges {branch} into {remote.branch}: merging it makes this desired."
    if declared is None:
        return None, f"{by_hand} With `spec.forge` and a token it is opened by itself."
    title = f"Adopt what was changed in {environment.key}"
    try:
        forge = forge_of(declared, Secrets(settings.secrets))
        url = forge.open_request(branch, remote.branch, title, _body(environment, found, actor))
    except (ForgeError, TrueupError, OSError) as error:
        why = error.message if isinstance(error, TrueupError) else str(error)
        log.warning("no request opened", branch=branch, reason=why)
        return None, f"The branch is there, but no request could be opened: {why} {by_hand}"
    what = "merge" if declared.kind is ForgeKind.GITLAB else "pull"
    return url, f"Merge the {what} request, and this is desired."


def _body(environment: EnvironmentEntry, found: Sequence[str], actor: Actor) -> str:
    more = [f"- and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
    release = [
        "Merging this makes a release of the one that is served, **as it is on the node by then**, and switches to "
        "it; a second commit records which versions it has. If another release is served by then, nothing is done "
        "and the plan says so.",
    ]
    options = ["Merging this declares the options as they are in the document of this branch."]
    has_code = any(not one.startswith(FIELD) for one in found)
    has_options = any(one.startswith(FIELD) for one in found)
    return "\n".join(
        [
            f"A drift check of {code(environment.key)} found what was changed on its node:",
            "",
            *(f"- {code(one)}" for one in found[:_MOST_SHOWN]),
            *more,
            "",
            *(release if has_code else []),
            *(options if has_options else []),
            f"To have it gone instead, close this and run {code(f'trueup drift discard {environment.key}')}.",
            "",
            f"Asked for by {code(actor.name)}.",
        ]
    )
