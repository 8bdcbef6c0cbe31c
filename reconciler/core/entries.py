"""One document as an entry of the fleet: read as data, held against its model, or stalled with file and line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from pydantic import ValidationError

from reconciler.core.manifests import (
    SLUG_PATTERN,
    Environment,
    Manifest,
    Node,
    Platform,
    Site,
    id_of,
    model_for,
    slugs_of,
)

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """One YAML document as data; ``line_of`` tells the line (from 1) of a place in it, when asked."""

    path: str
    data: object
    line_of: Callable[[Location], int | None]


@dataclass(frozen=True)
class Stalled:
    """Why nothing is decided for the document at ``path``."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line or 1}: {self.message}"


@dataclass(frozen=True)
class Entry:
    """A document that parsed."""

    path: str
    id: UUID
    slug: str
    stalled: Stalled | None = field(default=None, compare=False, kw_only=True)
    line_of: Callable[[Location], int | None] = field(
        default=lambda _location: None, compare=False, repr=False, kw_only=True
    )


@dataclass(frozen=True)
class PlatformEntry(Entry):
    manifest: Platform


@dataclass(frozen=True)
class NodeEntry(Entry):
    manifest: Node


@dataclass(frozen=True)
class SiteEntry(Entry):
    manifest: Site

    @property
    def name(self) -> str:
        return self.manifest.metadata.name or self.slug


@dataclass(frozen=True)
class EnvironmentEntry(Entry):
    manifest: Environment
    site: str
    """The slug of the site, from the path."""

    @property
    def name(self) -> str:
        return self.manifest.metadata.name or self.slug

    @property
    def key(self) -> str:
        """How people name it: ``acme/production``."""
        return f"{self.site}/{self.slug}"


Parsed = PlatformEntry | NodeEntry | SiteEntry | EnvironmentEntry


def parse(document: Document) -> Parsed | Stalled | None:
    """One document against its model. None: the path is outside the store's layout and none of our business."""
    model = model_for(document.path)
    if model is None:
        return _misplaced(document.path)
    if bad := [slug for slug in slugs_of(document.path).values() if not _is_slug(slug)]:
        return Stalled(document.path, None, f"`{bad[0]}` is no slug: use a-z, 0-9 and inner dashes, 63 at most.")
    try:
        manifest = model.model_validate(document.data)
    except ValidationError as error:
        return _first_problem(document, error)
    return _entry(document, manifest)


def _is_slug(text: str) -> bool:
    return re.fullmatch(SLUG_PATTERN, text) is not None


def _misplaced(path: str) -> Stalled | None:
    if not path.startswith(("nodes/", "sites/")):
        return None
    return Stalled(
        path,
        None,
        "no document belongs at this path. Use nodes/<name>.yaml, sites/<site>/site.yaml or "
        "sites/<site>/environments/<environment>.yaml.",
    )


def _first_problem(document: Document, error: ValidationError) -> Stalled:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "document"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "no such field; correct or remove it"
    return Stalled(document.path, document.line_of(problem["loc"]), f"{where}: {message}")


def _entry(document: Document, manifest: Manifest) -> Parsed:
    path, slugs = document.path, slugs_of(document.path)
    id_ = id_of(path, manifest.metadata)
    if isinstance(manifest, Platform):
        return PlatformEntry(path, id_, "platform", manifest, line_of=document.line_of)
    if isinstance(manifest, Node):
        return NodeEntry(path, id_, slugs["node"], manifest, line_of=document.line_of)
    if isinstance(manifest, Site):
        return SiteEntry(path, id_, slugs["site"], manifest, line_of=document.line_of)
    return EnvironmentEntry(path, id_, slugs["environment"], manifest, slugs["site"], line_of=document.line_of)
