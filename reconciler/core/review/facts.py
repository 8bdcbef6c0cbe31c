"""What differs between two versions of an environment's desired state, in the words of somebody who runs WordPress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.fleet import Fleet
from reconciler.core.options import shown
from reconciler.core.variables import ContentVariables, DomainVariables, EnvironmentVariables, ReleaseVariables
from reconciler.core.visible import visible


@dataclass(frozen=True, order=True)
class Fact:
    """One thing that is to be otherwise. ``before`` None: there was nothing to compare with."""

    what: str
    before: str | None
    after: str

    def data(self) -> dict[str, str | None]:
        return {"what": self.what, "before": self.before, "after": self.after}


def of_environment(
    before: tuple[Fleet, EnvironmentEntry] | None,
    after: tuple[Fleet, EnvironmentEntry],
    new: EnvironmentVariables | None = None,
) -> tuple[Fact, ...]:
    """What the two say differently of one environment; all that is worth telling of a new one.

    ``new``: what the later one amounts to, where that is known already.
    """
    fleet, entry = after
    new = new or fleet.environment_variables(entry.id)
    if before is None:
        return tuple(_told(entry, new, fleet))
    old_fleet, old_entry = before
    old = old_fleet.environment_variables(old_entry.id)
    return (
        *_changed("name", old_entry.key, entry.key),
        *_changed("node", old_entry.manifest.spec.node, entry.manifest.spec.node),
        *_effective(old, new, old_fleet, fleet),
        *of_documents(old_entry.manifest, entry.manifest, skip=_EFFECTIVE),
    )


def _told(entry: EnvironmentEntry, new: EnvironmentVariables, fleet: Fleet) -> Iterator[Fact]:
    yield Fact("type", None, new.type)
    yield Fact("WordPress", None, new.wordpress_version)
    yield Fact("code", None, code(new.release))
    yield Fact("content", None, content(new.content, fleet))
    yield Fact("address", None, new.url)
    if new.domains:
        yield Fact("domains", None, _domains(new.domains))
    if entry.manifest.spec.expires_at:
        yield Fact("expires_at", None, entry.manifest.spec.expires_at.isoformat())


def _effective(old: EnvironmentVariables, new: EnvironmentVariables, old_fleet: Fleet, fleet: Fleet) -> Iterator[Fact]:
    yield from _changed("type", old.type, new.type)
    yield from _changed("WordPress", old.wordpress_version, new.wordpress_version)
    if old.release != new.release:
        yield Fact("code", *_apart(code(old.release), code(new.release), old.release.id, new.release.id))
    if old.content != new.content:
        words = content(old.content, old_fleet), content(new.content, fleet)
        yield Fact("content", *_apart(*words, old.content.id, new.content.id))
    yield from _changed("page cache", _switch(old.fastcgi_cache), _switch(new.fastcgi_cache))
    yield from _changed("object cache", _switch(old.redis_cache), _switch(new.redis_cache))
    yield from _changed("page cache by cookies", *(", ".join(one.vary_cookies or ()) or "none" for one in (old, new)))
    yield from _changed("address", old.url, new.url)
    yield from _changed("domains", _domains(old.domains), _domains(new.domains))
    if old.tls and new.tls:
        yield from of_models("certificates", old.tls, new.tls)
    yield from of_models("PHP", old.php, new.php)
    yield from _changed("code files", old.files, new.files)
    for name in sorted(old.options.keys() | new.options.keys()):
        yield from _changed(f"option {name}", shown(old.options.get(name)), shown(new.options.get(name)))


def of_models(label: str, old: BaseModel, new: BaseModel) -> Iterator[Fact]:
    """The leaves in which two models differ."""
    if old == new:
        return
    was, will = (dict(leaves(one.model_dump(mode="json"))) for one in (old, new))
    for field in sorted(was.keys() | will.keys()):
        yield from _changed(f"{label} {field}", word(was.get(field)), word(will.get(field)))


def of_documents(old: BaseModel, new: BaseModel, *, skip: frozenset[str] = frozenset()) -> tuple[Fact, ...]:
    """The fields in which two documents differ, but those below ``skip``, by their paths."""
    if old is new or old == new:
        return ()
    was, will = (dict(leaves(one.model_dump(mode="json"))) for one in (old, new))
    return tuple(
        Fact(field, word(was.get(field)), word(will.get(field)))
        for field in sorted(was.keys() | will.keys())
        if was.get(field) != will.get(field) and not _is_below(field, skip)
    )


_EFFECTIVE = frozenset(
    f"spec.{name}"
    for name in (
        "type",
        "node",
        "wordpress",
        "release",
        "content",
        "cache",
        "php",
        "files",
        "options",
        "domains",
        "preview_url",
    )
)
"""Told from what they amount to."""


def _is_below(field: str, paths: frozenset[str]) -> bool:
    return any(field == path or field.startswith(f"{path}.") for path in paths)


def _changed(what: str, old: str, new: str) -> Iterator[Fact]:
    if old != new:
        yield Fact(what, old, new)


def _apart(old: str, new: str, old_id: str, new_id: str) -> tuple[str, str]:
    """Two descriptions that can be told apart."""
    return (old, new) if old != new else (f"{old} ({old_id[:8]})", f"{new} ({new_id[:8]})")


def code(release: ReleaseVariables) -> str:
    """Where the code comes from."""
    match release.origin:
        case "update":
            return f"update of {'everything' if release.scope in {None, 'all'} else release.scope}"
        case "clone" | "promote":
            return f"{_ORIGINS[release.origin]} of environment {(release.made_from or '')[:8]}"
        case "adopt" | "discard":
            return f"{_ORIGINS[release.origin]} release {(release.made_from or '')[:8]}"
        case "restore" | "import":
            return _ORIGINS[release.origin]
    if release.source_ref is None:
        return "WordPress alone"
    return f"{release.source_ref}{f' at {release.revision[:12]}' if release.revision else ''}"


MOST_CHOSEN = 10
"""Selectors of a promotion that are named."""
_ORIGINS = {
    "clone": "copy",
    "promote": "promotion",
    "restore": "of the backup",
    "import": "of the imported archive",
    "adopt": "what was changed in",
    "discard": "what was released as",
}


def content(told: ContentVariables, fleet: Fleet) -> str:
    """Where database and uploads come from."""
    match told.origin:
        case "install":
            return f"new installation, “{told.title}”"
        case "import":
            return f"archive {told.archive_url}"
        case "restore":
            return f"backup {told.backup}"
        case "search-replace":
            former, new = (visible(text or "", 80) for text in (told.search, told.replace))
            return f"what was there, with “{former}” replaced by “{new}”"
    return f"{_ORIGINS[told.origin]} of {_name(told.source_environment, fleet)}{_chosen(told)}"


def _chosen(told: ContentVariables) -> str:
    """What of a promotion moves alone, and what does not."""
    parts = ((", only ", told.include), (", without ", told.exclude))
    return "".join(f"{word}{_named(names)}" for word, names in parts if names)


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_CHOSEN
    shown = ", ".join(visible(name, 80) for name in names[:MOST_CHOSEN])
    return f"{shown} and {more} more" if more > 0 else shown


def _name(id_: str | None, fleet: Fleet) -> str:
    entry = fleet.environments.get(UUID(id_)) if id_ else None
    return entry.key if entry else f"environment {(id_ or '')[:8]}"


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _domains(domains: tuple[DomainVariables, ...]) -> str:
    return ", ".join(one.hostname if one.tls else f"{one.hostname} (without TLS)" for one in domains) or "none"


def leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def word(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return ", ".join(word(item) for item in value) or "nothing"
        case Mapping():
            return " ".join(f"{key}={word(item)}" for key, item in value.items())
    return str(value)
