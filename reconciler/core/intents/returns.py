"""What a failed operation had declared is put back, so that the store says what is there."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.fields import Strict
from reconciler.core.intents.edits import Edit, plain
from reconciler.core.manifests import Domain, EnvironmentSpec, Release

FIELDS = ("release", "content", "wordpress", "versions", "cache", "options")


def take_back(
    before: EnvironmentEntry,
    declared: EnvironmentEntry,
    now: EnvironmentEntry,
    why: str,
    *,
    subject: str | None = None,
    taken: Container[str] = (),
) -> Edit | None:
    """The edit that puts back what ``declared`` had changed in ``FIELDS`` and domains; None: nothing is left of it.

    A field that somebody has changed again since then stays as it is. Of domains, each stands for itself; those that
    others have by now (``taken``) stay theirs.
    """
    was, said, says = before.manifest.spec, declared.manifest.spec, now.manifest.spec
    moved = [name for name in FIELDS if getattr(was, name) != getattr(said, name)]
    domains = _domains(was, said, says, taken)
    if (not moved and domains is None) or any(getattr(says, name) != getattr(said, name) for name in moved):
        return None
    # The versions that it resulted in stand there already: it went well, whatever became of its job.
    if said.release and said.release.origin in {"update", "adopt"} and _versions(says) != _versions(said):
        return None
    written = {name: _written(was, name) for name in moved if name in was.model_fields_set}
    if domains or (domains is not None and "domains" in was.model_fields_set and not was.domains):
        written["domains"] = [_as_written(domain) for domain in domains]
    gone = {*moved, *(["domains"] if domains is not None else [])} - written.keys()
    said_so = subject or f"Take back what {now.key} did not become"
    return Edit(
        message=f"{said_so}\n\n{why}",
        assign={now.path: {("spec", name): value for name, value in written.items()}},
        unset={now.path: frozenset(("spec", name) for name in gone)},
    )


def is_all(before: EnvironmentEntry, declared: EnvironmentEntry, taken: Container[str]) -> bool:
    """Whether ``take_back`` leaves nothing of what ``declared`` had changed: its text may be what it was, too."""
    was, said = before.manifest.model_dump(), declared.manifest.model_dump()
    for name in (*FIELDS, "domains"):
        said["spec"][name] = was["spec"][name]
    return was == said and not any(domain.hostname in taken for domain in before.manifest.spec.domains)


def stay(now: EnvironmentEntry, release: Release) -> Edit:
    """The edit after which the environment keeps the release that it has: there was nothing to update."""
    return Edit(
        message=f"Nothing to update for {now.key}: it keeps release {release.id}",
        assign={now.path: {("spec", "release"): plain(release)}},
    )


def _domains(
    was: EnvironmentSpec, said: EnvironmentSpec, says: EnvironmentSpec, taken: Container[str]
) -> list[Domain] | None:
    """Without those that were added, and with those that were taken away at their place; None: no change."""
    before, after = ([domain.hostname for domain in spec.domains] for spec in (was, said))
    left = [one for one in says.domains if one.hostname in before or one.hostname not in after]
    for place, domain in enumerate(was.domains):
        name = domain.hostname
        if name not in after and name not in taken and name not in [one.hostname for one in left]:
            left.insert(place, domain)
    return None if left == list(says.domains) else left


def _versions(spec: EnvironmentSpec) -> tuple[object, ...]:
    return spec.wordpress, spec.versions


def _written(spec: EnvironmentSpec, name: str) -> Any:
    value = getattr(spec, name)
    return _as_written(value) if isinstance(value, Strict) else value


def _as_written(part: Strict) -> dict[str, Any]:
    """What the document says, without what it left to defaults."""
    return part.model_dump(mode="json", exclude_unset=True)
