"""An update of WordPress, its plugins and themes: asked for, rehearsed, backed up, made, and written down.

The node says what it has, the mirror what there is; the packages go from the mirror through this host to the node,
which asks nobody. What was rehearsed once is not chosen again: a job that is run again goes on with the same versions.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from pydantic import ValidationError

from reconciler.artifacts.learned import can_be_fetched, learn
from reconciler.core.actions import RehearseUpdate, UpdateWordPress
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import (
    ArtifactError,
    Conflict,
    JobError,
    NodeUnreachable,
    NotFound,
    SourceRefused,
    SourceUnavailable,
)
from reconciler.core.fleet import Fleet
from reconciler.core.intents import Edit, RecordVersions, evaluate, stay
from reconciler.core.jobs import JobErrorCode, JobType
from reconciler.core.manifests import BackupScope, UpdateScope
from reconciler.core.node_answer import MOST_BYTES, AnswerRefused, read_object, understood
from reconciler.core.observed import ObservedNode
from reconciler.core.updates import (
    PARTS,
    Installed,
    Kind,
    Offer,
    Package,
    Prepared,
    Selection,
    by_slug,
    choose_core,
    listed,
    select,
)
from reconciler.core.visible import visible
from reconciler.loop import backups
from reconciler.loop.results import failure
from reconciler.loop.tools import Inputs, Run, Tools
from reconciler.operations.releases import earlier_release
from reconciler.operations.taking_back import withdraw
from reconciler.records.outcomes import Failed, Stopped
from reconciler.sources.mirror import Mirror
from reconciler.store.importing import TRUEUP
from reconciler.store.repository import Snapshot

LOOK_S = 30.0


@dataclass(frozen=True)
class Updated:
    """How an update went; ``packages`` as ``plugins/akismet 5.1 → 5.3``, nothing where there was nothing to update."""

    wordpress: tuple[str, str] | None
    packages: tuple[str, ...]
    notes: tuple[str, ...]
    nothing: bool = False

    def told(self) -> dict[str, Any]:
        core = {"from": self.wordpress[0], "to": self.wordpress[1]} if self.wordpress else None
        return {"wordpress": core, "packages": list(self.packages), "notes": list(self.notes)}


def update(
    action: UpdateWordPress, answer: ObservedNode, tools: Tools, fleet: Fleet, run: Run
) -> Updated | Failed | Stopped:
    """Carry an update out, whatever of it was done before; afterwards the store says what resulted.

    Raises:
        JobError: the mirror, the node or the storage did not do its part. What is served was not touched.
    """
    there = look(action, tools, fleet)
    selection = None
    if there.prepared is None:
        mirror = Mirror(fleet.platform, tools.settings.upload_max_mb << 20, run.cancel)
        selection = _selected(action, there, answer, mirror)
        if selection.is_empty:
            _stay(action, there, tools, run)
            return Updated(None, (), selection.notes, nothing=True)
        with _packages(selection, there, mirror, tools) as given:
            result = tools.apply(_rehearsal(action, selection.wordpress_version), fleet, run, _inputs(given))
        if failed := failure(result):
            return failed
    version = selection.wordpress_version if selection else _prepared(there).wordpress_version
    backups.take(action.environment_id, uuid5(run.job_id, str(run.fence)), BackupScope.FULL, tools, fleet, run)
    made = replace(action, variables=action.variables.model_copy(update={"wordpress_version": version}))
    if failed := failure(tools.apply(made, fleet, run, _inputs({"wordpress_version": version, "packages": []}))):
        return failed
    record(action.environment_id, tools, fleet)
    core = (there.wordpress_version, version) if version != there.wordpress_version else None
    told = tuple(listed(selection.packages)) if selection else ()
    return Updated(core, told, selection.notes if selection else ())


def _prepared(there: Installed) -> Prepared:
    assert there.prepared is not None  # noqa: S101 (asked before)
    return there.prepared


def _rehearsal(action: UpdateWordPress, version: str) -> RehearseUpdate:
    variables = action.variables.model_copy(update={"wordpress_version": version})
    return RehearseUpdate(action.node, action.node_id, action.environment_id, variables)


def _inputs(given: dict[str, Any]) -> Inputs:
    return Inputs({"trueup_update": given})


# What there is, and what is offered


def look(action: UpdateWordPress, tools: Tools, fleet: Fleet) -> Installed:
    """What the release that is to be updated is made of, as its node says."""
    release = action.variables.release
    return _ask(action.environment_id, release.made_from, release.id, tools, fleet)


def _ask(environment_id: UUID, release: str | None, following: str | None, tools: Tools, fleet: Fleet) -> Installed:
    environment = fleet.environment(environment_id)
    node = fleet.node_of(environment)
    if node is None:
        raise JobError(JobErrorCode.TARGET_MISSING, f"The node of {environment.key} has no document.")
    script = Path(__file__).parent.parent.joinpath("nodes", "installed.py").read_bytes()
    options = json.dumps({"environment": str(environment_id), "release": release, "next": following})
    argv = ["python3", "-I", "-S", "-", options]
    try:
        done = tools.connections.run(
            tools.target(node), argv, stdin=script, timeout_s=LOOK_S, max_output_bytes=MOST_BYTES
        )
    except NodeUnreachable as error:
        raise JobError(JobErrorCode.ANSIBLE_HOST_UNREACHABLE, error.message) from error
    try:
        return understood(Installed, read_object(done.stdout))
    except AnswerRefused as error:
        said = visible(done.stderr.decode(errors="replace").strip()[-300:]) or f"an answer that cannot be used: {error}"
        raise JobError(
            JobErrorCode.UPDATE_UNAVAILABLE, f"{environment.key} cannot be looked through on its node: {said}"
        ) from error


def _selected(action: UpdateWordPress, there: Installed, answer: ObservedNode, mirror: Mirror) -> Selection:
    scope: UpdateScope = action.variables.release.scope or "all"
    php = answer.versions.get("php", "")
    try:
        core = choose_core(there, mirror.core(there, php), php) if "core" in PARTS[scope] else None
        kinds: list[Kind] = [part for part in PARTS[scope] if part != "core"]
        offers: dict[Kind, dict[str, Offer]] = {kind: dict(mirror.extensions(kind, there)) for kind in kinds}
    except (SourceUnavailable, SourceRefused) as error:
        raise JobError(JobErrorCode.UPDATE_UNAVAILABLE, error.message) from error
    return select(there, core, offers, php)


@contextmanager
def _packages(selection: Selection, there: Installed, mirror: Mirror, tools: Tools) -> Iterator[dict[str, Any]]:
    """What ``rehearsal.yml`` is given: every package as a file of this host with its sha256, gone afterwards.

    Raises:
        JobError: one cannot be had, or core is not what it has to be.
    """
    with tempfile.TemporaryDirectory(prefix="update-", dir=tools.settings.run_directory) as work:
        try:
            _have_core(selection, there, mirror, Path(work, "core"), tools)
            packages = [_fetched(one, mirror, Path(work, str(n))) for n, one in enumerate(selection.packages)]
        except (SourceUnavailable, SourceRefused) as error:
            raise JobError(JobErrorCode.UPDATE_UNAVAILABLE, error.message) from error
        except ArtifactError as error:
            raise JobError(JobErrorCode.UPDATE_UNTRUSTED, error.message) from error
        yield {"wordpress_version": selection.wordpress_version, "packages": packages}


def _have_core(selection: Selection, there: Installed, mirror: Mirror, package: Path, tools: Tools) -> None:
    """A pinned version comes from where its pin says, as ever; another one from the mirror, held to its checksums."""
    version, cache = selection.wordpress_version, tools.settings.artifacts
    if selection.core_url is None or can_be_fetched(version, cache):
        return
    mirror.fetch(selection.core_url, package)
    learn(version, package, lambda: mirror.checksums(version, there), cache)


def _fetched(package: Package, mirror: Mirror, path: Path) -> dict[str, str]:
    mirror.fetch(package.url, path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    given = package.model_dump(include={"kind", "key", "version"})
    return {**given, "directory": package.directory, "path": str(path), "sha256": sha256}


# What the store says afterwards


def record(environment_id: UUID, tools: Tools, fleet: Fleet) -> None:
    """Commit the versions of the declared update as the node has them, unless they stand there already."""
    environment = fleet.environment(environment_id)
    release = fleet.release_id(environment)
    there = _ask(environment_id, str(release), None, tools, fleet)
    try:
        intent = RecordVersions(
            environment_id=environment_id,
            release_id=release,
            wordpress_version=there.wordpress_version,
            plugins=by_slug(there.plugins),
            themes=by_slug(there.themes),
        )
    except ValidationError as error:
        message = f"{environment.key} says that its WordPress is {visible(there.wordpress_version, 80)}: no version."
        raise JobError(JobErrorCode.UPDATE_UNAVAILABLE, message) from error
    spec = environment.manifest.spec
    recorded = (spec.wordpress and spec.wordpress.version, dict(spec.versions.plugins), dict(spec.versions.themes))
    if there.release == str(release) and recorded != (intent.wordpress_version, intent.plugins, intent.themes):
        _commit(lambda now: evaluate(intent, now, {}, tools.clock()), tools)


def is_unrecorded(environment: EnvironmentEntry, answer: ObservedNode, tools: Tools, run: Run) -> bool:
    """Whether the node has made the declared update or adoption, and the store may not say yet what resulted.

    That is so after a crash between the two; somebody who pins another version afterwards says something new.
    """
    release, there = environment.manifest.spec.release, answer.environments.get(str(environment.id))
    applied = there.applied if there else None
    if release is None or release.origin not in {"update", "adopt"} or applied is None:
        return False
    if applied.release_id != str(release.id):
        return False
    if release.origin == "adopt":
        versions = environment.manifest.spec.versions
        return not versions.plugins and not versions.themes
    declared = environment.manifest.spec.wordpress
    before = applied.made_with(str(release.made_from))
    moved = applied.wordpress_version != before
    if moved and before == (declared.version if declared else before):
        return True
    return tools.state.records.jobs.get(run.job_id).job_type == JobType.UPDATES


def _stay(action: UpdateWordPress, there: Installed, tools: Tools, run: Run) -> None:
    """There is nothing to update: the store says again which release is there."""
    state, subject = tools.state, f"Nothing to update for {action.target}"
    if withdraw(state.records.jobs.get(run.job_id), state, subject):
        return
    # Declared by hand: what the node tells of its release is declared again.
    try:
        release, _ = earlier_release(state, action.environment_id, UUID(there.release))
    except ValueError as error:
        message = f"Nothing is to be updated, and the node names a release that is none: {visible(there.release, 80)}."
        raise JobError(JobErrorCode.UPDATE_UNAVAILABLE, message) from error
    except Conflict as error:
        raise JobError(JobErrorCode.JOB_CONFLICT, f"Nothing is to be updated, and {error.message}") from error
    _commit(lambda now: stay(now.environment(action.environment_id), release), tools)


def _commit(edit: Callable[[Fleet], Edit], tools: Tools) -> None:
    def evaluated(snapshot: Snapshot) -> Edit:
        return edit(tools.state.fleet_of(snapshot.revision, snapshot.documents))

    try:
        tools.state.repository.commit(evaluated, TRUEUP)
    except (Conflict, NotFound) as error:
        raise JobError(JobErrorCode.JOB_CONFLICT, error.message) from error
