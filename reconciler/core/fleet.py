"""All documents at one revision: who refers to whom, what is unique, what each environment amounts to.

A document that cannot be read, or that doesn't fit the others, is *stalled*: it is told with file and line, keeps
its last good shape for readers, and nothing is decided for it. The rest of the fleet goes on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID, uuid5

from pydantic import ValidationError

from reconciler.core import variables
from reconciler.core.errors import NotFound
from reconciler.core.manifests import (
    SLUG_PATTERN,
    Environment,
    EnvironmentType,
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


_E = TypeVar("_E", bound=Entry)

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


@dataclass(frozen=True)
class Fleet:
    """Desired state at one revision. Entries with ``stalled`` set are there for readers only."""

    revision: str
    platform: Platform
    nodes: Mapping[UUID, NodeEntry]
    sites: Mapping[UUID, SiteEntry]
    environments: Mapping[UUID, EnvironmentEntry]
    stalled: tuple[Stalled, ...]

    @cached_property
    def nodes_by_slug(self) -> Mapping[str, NodeEntry]:
        return {node.slug: node for node in self.nodes.values()}

    @cached_property
    def sites_by_slug(self) -> Mapping[str, SiteEntry]:
        return {site.slug: site for site in self.sites.values()}

    @cached_property
    def environments_by_key(self) -> Mapping[str, EnvironmentEntry]:
        return {environment.key: environment for environment in self.environments.values()}

    @cached_property
    def environments_by_site(self) -> Mapping[str, tuple[EnvironmentEntry, ...]]:
        """By the site's slug, in the order of their slugs, production first."""
        groups: defaultdict[str, list[EnvironmentEntry]] = defaultdict(list)
        for environment in self.environments.values():
            groups[environment.site].append(environment)
        return {site: tuple(sorted(group, key=_production_first)) for site, group in groups.items()}

    @cached_property
    def environments_by_node(self) -> Mapping[str, tuple[EnvironmentEntry, ...]]:
        """By the node's slug."""
        groups: defaultdict[str, list[EnvironmentEntry]] = defaultdict(list)
        for environment in self.environments.values():
            groups[environment.manifest.spec.node].append(environment)
        return {node: tuple(group) for node, group in groups.items()}

    def site(self, site_id: UUID) -> SiteEntry:
        return _found(self.sites, site_id, "site")

    def environment(self, environment_id: UUID) -> EnvironmentEntry:
        return _found(self.environments, environment_id, "environment")

    def node(self, node_id: UUID) -> NodeEntry:
        return _found(self.nodes, node_id, "node")

    def node_of(self, environment: EnvironmentEntry) -> NodeEntry | None:
        return self.nodes_by_slug.get(environment.manifest.spec.node)

    def site_of(self, environment: EnvironmentEntry) -> SiteEntry | None:
        return self.sites_by_slug.get(environment.site)

    def preview_url(self, environment: EnvironmentEntry) -> str:
        """As written in the document, else derived from the node's address or the preview domain."""
        if environment.manifest.spec.preview_url:
            return environment.manifest.spec.preview_url
        node = self.node_of(environment)
        return preview_url(environment.id, node.manifest.spec.address if node else "0.0.0.0", self.platform)  # noqa: S104

    def release_id(self, environment: EnvironmentEntry) -> UUID:
        release = environment.manifest.spec.release
        return release.id if release else uuid5(environment.id, "release")

    def content_id(self, environment: EnvironmentEntry) -> UUID:
        content = environment.manifest.spec.content
        return content.id if content else uuid5(environment.id, "content")

    def environment_variables(self, environment_id: UUID) -> variables.EnvironmentVariables:
        """What the ``environment`` role is told for this environment, without a job."""
        environment = self.environment(environment_id)
        spec, url = environment.manifest.spec, self.preview_url(environment)
        return variables.EnvironmentVariables(
            id=str(environment.id),
            site=environment.site,
            slug=environment.slug,
            type=spec.type.value,
            url=url,
            hostnames=(url.partition("://")[2],),
            wordpress_version=(spec.wordpress or self.platform.spec.wordpress).version,
            release=self._release_variables(environment),
            content=self._content_variables(environment),
            fastcgi_cache=spec.cache.fastcgi,
            redis_cache=spec.cache.redis,
            php=variables.PhpVariables.model_validate(spec.php.model_dump()),
            files=spec.files,
        )

    def _release_variables(self, environment: EnvironmentEntry) -> variables.ReleaseVariables:
        release = environment.manifest.spec.release
        return variables.ReleaseVariables(
            id=str(self.release_id(environment)),
            source_type=release.source_type if release else None,
            source_ref=release.source_ref if release else None,
            revision=release.revision if release else None,
        )

    def _content_variables(self, environment: EnvironmentEntry) -> variables.ContentVariables:
        content, site = environment.manifest.spec.content, self.site_of(environment)
        defaults = self.platform.spec.wordpress
        return variables.ContentVariables(
            id=str(self.content_id(environment)),
            origin="install",
            title=(content and content.title) or (site.name if site else environment.site),
            admin_user=(content and content.admin_user) or defaults.admin_user,
            admin_email=(content and content.admin_email) or defaults.admin_email,
            locale=content.locale if content else "en_US",
        )

    def node_variables(self, node_id: UUID) -> variables.NodeVariables:
        """What the ``node`` role is told for this node, without a job."""
        node = self.node(node_id)
        return variables.NodeVariables(
            id=str(node.id),
            name=node.slug,
            address=node.manifest.spec.address,
            ssh_port=node.manifest.spec.ssh.port,
            redis_memory_percent=node.manifest.spec.redis.memory_percent,
            wordpress_version=self.platform.spec.wordpress.version,
        )


def preview_url(environment_id: UUID, address: str, platform: Platform) -> str:
    """The address that an environment answers at before it has a domain of its own."""
    label = str(environment_id)[:8]
    if platform.spec.preview_domain:
        return f"https://{label}.{platform.spec.preview_domain}"
    return f"http://{label}.{address.replace('.', '-').replace(':', '-')}.sslip.io"


def assemble(revision: str, parsed: Iterable[Parsed | Stalled | None]) -> Fleet:
    """The fleet of these documents, each held against the others. Order of ``parsed`` doesn't matter."""
    items = list(parsed)
    entries = sorted((item for item in items if isinstance(item, Entry)), key=lambda entry: entry.path)
    fleet = _fleet(revision, entries, [item for item in items if isinstance(item, Stalled)])
    problems = _problems(entries, fleet)
    if not problems:
        return fleet
    checked = [replace(item, stalled=problems[item.path]) if item.path in problems else item for item in entries]
    unreadable = [item for item in items if isinstance(item, Stalled)]
    return _fleet(revision, checked, unreadable)


def _fleet(revision: str, entries: list[Any], unreadable: list[Stalled]) -> Fleet:
    platform: Platform | None = None
    nodes: dict[UUID, NodeEntry] = {}
    sites: dict[UUID, SiteEntry] = {}
    environments: dict[UUID, EnvironmentEntry] = {}
    for entry in entries:
        if isinstance(entry, EnvironmentEntry):
            environments.setdefault(entry.id, entry)
        elif isinstance(entry, SiteEntry):
            sites.setdefault(entry.id, entry)
        elif isinstance(entry, NodeEntry):
            nodes.setdefault(entry.id, entry)
        elif isinstance(entry, PlatformEntry):
            platform = entry.manifest
    stalled = {*unreadable, *(entry.stalled for entry in entries if entry.stalled)}
    return Fleet(
        revision=revision,
        platform=platform or Platform(apiVersion="trueup/v1", kind="Platform"),
        nodes=nodes,
        sites=sites,
        environments=environments,
        stalled=tuple(sorted(stalled, key=lambda item: (item.path, item.line or 0))),
    )


def _problems(entries: list[Any], fleet: Fleet) -> dict[str, Stalled]:
    """The first problem of each document that only the others show."""
    problems: dict[str, Stalled] = {}
    for problem in (*_shared_ids(entries), *_shared_addresses(entries), *_dangling(entries, fleet)):
        problems.setdefault(problem.path, problem)
    for problem in (*_second_productions(entries, problems), *_shared_urls(entries, fleet, problems)):
        problems.setdefault(problem.path, problem)
    return problems


def _shared_ids(entries: list[Any]) -> Iterable[Stalled]:
    for same in _groups(entries, lambda entry: entry.id):
        for entry in same:
            other = next(one.path for one in same if one.path != entry.path)
            yield Stalled(
                entry.path,
                entry.line_of(("metadata", "id")),
                f"id {entry.id} is also the id of {other}. Give one of them a new id, or remove it.",
            )


def _shared_addresses(entries: list[Any]) -> Iterable[Stalled]:
    nodes = [entry for entry in entries if isinstance(entry, NodeEntry)]
    for same in _groups(nodes, lambda node: (node.manifest.spec.address, node.manifest.spec.ssh.port)):
        for entry in same:
            other = next(one.path for one in same if one.path != entry.path)
            yield Stalled(
                entry.path,
                entry.line_of(("spec", "address")),
                f"address {entry.manifest.spec.address} is also that of {other}. One host is one node.",
            )


def _dangling(entries: list[Any], fleet: Fleet) -> Iterable[Stalled]:
    nodes = {entry.slug for entry in entries if isinstance(entry, NodeEntry)}
    sites = {entry.slug for entry in entries if isinstance(entry, SiteEntry)}
    for entry in entries:
        if not isinstance(entry, EnvironmentEntry):
            continue
        if entry.site not in sites:
            yield Stalled(
                entry.path,
                None,
                f"Environment {entry.key} belongs to a site that no document defines. "
                f"Add sites/{entry.site}/site.yaml or remove this document.",
            )
        elif entry.manifest.spec.node not in nodes:
            yield Stalled(
                entry.path,
                entry.line_of(("spec", "node")),
                f"Environment {entry.key} names node {entry.manifest.spec.node}, which no document defines. "
                f"Add nodes/{entry.manifest.spec.node}.yaml or correct spec.node.",
            )
        elif (source := entry.manifest.spec.source_environment) and source not in fleet.environments:
            yield Stalled(
                entry.path,
                entry.line_of(("spec", "source_environment")),
                f"Environment {entry.key} names source environment {source}, which no document defines.",
            )


def _second_productions(entries: list[Any], problems: Mapping[str, Stalled]) -> Iterable[Stalled]:
    productions = [
        entry
        for entry in entries
        if isinstance(entry, EnvironmentEntry)
        and entry.path not in problems
        and entry.manifest.spec.type is EnvironmentType.PRODUCTION
    ]
    for same in _groups(productions, lambda entry: entry.site):
        for entry in same:
            other = next(one.path for one in same if one.path != entry.path)
            yield Stalled(
                entry.path,
                entry.line_of(("spec", "type")),
                f"Site {entry.site} has a second production environment in {other}. Keep one; "
                "make the other staging or clone.",
            )


def _shared_urls(entries: list[Any], fleet: Fleet, problems: Mapping[str, Stalled]) -> Iterable[Stalled]:
    environments = [entry for entry in entries if isinstance(entry, EnvironmentEntry) and entry.path not in problems]
    for same in _groups(environments, fleet.preview_url):
        for entry in same:
            other = next(one.path for one in same if one.path != entry.path)
            yield Stalled(
                entry.path,
                entry.line_of(("spec", "preview_url")),
                f"{fleet.preview_url(entry)} is also the preview URL of {other}. Change spec.preview_url.",
            )


def _groups(entries: Iterable[Any], key: Callable[[Any], Any]) -> Iterable[list[Any]]:
    """Entries that share a key; nearly always none, so nothing is gathered before one is found."""
    first: dict[Any, Any] = {}
    shared: dict[Any, list[Any]] = {}
    for entry in entries:
        value = key(entry)
        other = first.setdefault(value, entry)
        if other is not entry:
            shared.setdefault(value, [other]).append(entry)
    return shared.values()


def _found(entries: Mapping[UUID, _E], id_: UUID, noun: str) -> _E:
    if id_ not in entries:
        raise NotFound(f"No {noun} has the id {id_}. List them to see which there are.")
    return entries[id_]


def _production_first(environment: EnvironmentEntry) -> tuple[bool, str]:
    return (environment.manifest.spec.type is not EnvironmentType.PRODUCTION, environment.slug)
