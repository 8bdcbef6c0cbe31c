"""One document as an entry of the fleet: read as data, held against its model, or stalled with file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from pydantic import ValidationError

from reconciler.core.fields import SLUG_PATTERN
from reconciler.core.manifests import (
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


class Place(NamedTuple):
    """Line and column in a document, both from 1."""

    line: int
    column: int | None = None


@dataclass(frozen=True)
class Document:
    """One YAML document as data; ``place_of`` tells where something stands in it, when asked."""

    path: str
    data: object
    place_of: Callable[[Location], Place | None]


@dataclass(frozen=True)
class Stalled:
    """Why nothing is decided for the document at ``path``."""

    path: str
    place: Place | None
    message: str

    @property
    def line(self) -> int | None:
        return self.place.line if self.place else None

    @property
    def column(self) -> int | None:
        return self.place.column if self.place else None

    def data(self) -> dict[str, str | int | None]:
        return {"path": self.path, "line": self.line, "column": self.column, "message": self.message}

    def __str__(self) -> str:
        return f"{self.path}:{self.line or 1}:{f'{self.column}:' if self.column else ''} {self.message}"


@dataclass(frozen=True)
class Entry:
    """A document that parsed."""

    path: str
    id: UUID
    slug: str
    stalled: Stalled | None = field(default=None, compare=False, kw_only=True)
    place_of: Callable[[Location], Place | None] = field(
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
    slugs = slugs_of(document.path)
    if bad := [slug for slug in slugs.values() if not _is_slug(slug)]:
        return Stalled(document.path, None, f"`{bad[0]}` is no slug: use a-z, 0-9 and inner dashes, 63 at most.")
    try:
        manifest = model.model_validate(document.data)
    except ValidationError as error:
        return _first_problem(document, error)
    return _entry(document, manifest, slugs)


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
    # A key that is refused is told by its name alone.
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]") or "document"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "no such field; correct or remove it"
    return Stalled(document.path, document.place_of(problem["loc"]), f"{where}: {message}")


def _entry(document: Document, manifest: Manifest, slugs: Mapping[str, str]) -> Parsed:
    path = document.path
    id_ = id_of(path, manifest.metadata)
    if isinstance(manifest, Platform):
        return PlatformEntry(path, id_, "platform", manifest, place_of=document.place_of)
    if isinstance(manifest, Node):
        return NodeEntry(path, id_, slugs["node"], manifest, place_of=document.place_of)
    if isinstance(manifest, Site):
        return SiteEntry(path, id_, slugs["site"], manifest, place_of=document.place_of)
    return EnvironmentEntry(path, id_, slugs["environment"], manifest, slugs["site"], place_of=document.place_of)
