"""What a failed operation had declared is put back, so that the store says what is there."""

from __future__ import annotations

from typing import Any

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.intents.edits import Edit, plain
from reconciler.core.manifests import EnvironmentSpec, Release

FIELDS = ("release", "content", "wordpress", "versions", "cache")


def take_back(
    before: EnvironmentEntry, declared: EnvironmentEntry, now: EnvironmentEntry, why: str, *, subject: str | None = None
) -> Edit | None:
    """The edit that puts back what ``declared`` had changed in ``FIELDS``; None where nothing is left of it.

    A field that somebody has changed again since then stays as it is.
    """
    was, said, says = before.manifest.spec, declared.manifest.spec, now.manifest.spec
    moved = [name for name in FIELDS if getattr(was, name) != getattr(said, name)]
    if not moved or any(getattr(says, name) != getattr(said, name) for name in moved):
        return None
    # The versions that an update resulted in stand there already: it went well, whatever became of its job.
    if said.release and said.release.origin == "update" and _versions(says) != _versions(said):
        return None
    fields: dict[tuple[str, ...], Any] = {("spec", name): _value(was, name) for name in moved}
    said_so = subject or f"Take back what {now.key} did not become"
    return Edit(message=f"{said_so}\n\n{why}", assign={now.path: fields})


def stay(now: EnvironmentEntry, release: Release) -> Edit:
    """The edit after which the environment keeps the release that it has: there was nothing to update."""
    return Edit(
        message=f"Nothing to update for {now.key}: it keeps release {release.id}",
        assign={now.path: {("spec", "release"): plain(release)}},
    )


def _versions(spec: EnvironmentSpec) -> tuple[object, ...]:
    return spec.wordpress, spec.versions


def _value(spec: EnvironmentSpec, name: str) -> Any:
    return plain(getattr(spec, name))
