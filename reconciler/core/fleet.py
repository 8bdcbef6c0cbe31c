"""All documents at one revision: who refers to whom, what is unique, what each environment amounts to.

A document that cannot be read, or that doesn't fit the others, is *stalled*: it is told with file and line, keeps
its last good shape for readers, and nothing is decided for it. The rest of the fleet goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar
from uuid import UUID, uuid5

from reconciler.core import variables
from reconciler.core.consistency import problems_of
from reconciler.core.entries import (
    Entry,
    EnvironmentEntry,
    NodeEntry,
    Parsed,
    PlatformEntry,
    SiteEntry,
    Stalled,
)
from reconciler.core.errors import NotFound
from reconciler.core.fields import is_address
from reconciler.core.manifests import (
    Domain,
    EnvironmentSpec,
    EnvironmentType,
    HealthChecks,
    OwnHealthChecks,
    Php,
    Platform,
    Resources,
)

_E = TypeVar("_E", bound=Entry)


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
        return release.id if release else self.initial_release_id(environment)

    def initial_release_id(self, environment: EnvironmentEntry) -> UUID:
        """The one that it has while its document names none."""
        return uuid5(environment.id, "release")

    def health_interval_s(self, environment: EnvironmentEntry) -> int:
        """Seconds between two looks at whether it serves."""
        return environment.manifest.spec.health.interval_s or self.platform.spec.health.interval_s

    def health_timeout_s(self, environment: EnvironmentEntry) -> int:
        """Seconds that each check of it may take."""
        return environment.manifest.spec.health.timeout_s or self.platform.spec.health.timeout_s

    def content_id(self, environment: EnvironmentEntry) -> UUID:
        content = environment.manifest.spec.content
        return content.id if content else uuid5(environment.id, "content")

    def domain_id(self, environment: EnvironmentEntry, domain: Domain) -> UUID:
        return domain.id or uuid5(environment.id, domain.hostname)

    @cached_property
    def domains(self) -> Mapping[UUID, tuple[EnvironmentEntry, Domain]]:
        """Every declared domain by its id, with its environment."""
        return {
            self.domain_id(environment, domain): (environment, domain)
            for environment in self.environments.values()
            for domain in environment.manifest.spec.domains
        }

    def production_of(self, site: SiteEntry) -> EnvironmentEntry | None:
        """The site's production environment; None while none is declared."""
        environments = self.environments_by_site.get(site.slug, ())
        return next((one for one in environments if one.manifest.spec.type is EnvironmentType.PRODUCTION), None)

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
            hostnames=(url.partition("://")[2], *(domain.hostname for domain in spec.domains)),
            wordpress_version=(spec.wordpress or self.platform.spec.wordpress).version,
            release=self._release_variables(environment),
            content=self._content_variables(environment),
            fastcgi_cache=spec.cache.fastcgi,
            redis_cache=spec.cache.redis,
            vary_cookies=spec.cache.vary_cookies or None,
            php=_php_variables(spec.php),
            resources=_resources_variables(spec.resources, self.platform.spec.resources),
            health=_health_variables(spec.health, self.platform.spec.health),
            files=spec.files,
            egress=_egress_variable(spec),
            internal_hosts=_internal_hosts(spec.egress, self.platform.spec.imports.allowed_hosts),
            options=dict(spec.options),
            domains=tuple(
                variables.DomainVariables(
                    id=str(self.domain_id(environment, domain)), hostname=domain.hostname, tls=domain.tls
                )
                for domain in spec.domains
            ),
            tls=self._tls_variables() if any(domain.tls for domain in spec.domains) else None,
        )

    def _tls_variables(self) -> variables.TlsVariables:
        tls = self.platform.spec.tls
        return variables.TlsVariables(
            directory=tls.directory,
            email=tls.email,
            ca_bundle=tls.ca_bundle,
            resolvers=tls.resolvers,
        )

    def _release_variables(self, environment: EnvironmentEntry) -> variables.ReleaseVariables:
        release = environment.manifest.spec.release
        return variables.ReleaseVariables(
            id=str(self.release_id(environment)),
            source_type=release.source_type if release else None,
            source_ref=release.source_ref if release else None,
            revision=release.revision if release else None,
            origin=release.origin if release else None,
            made_from=_text(release.made_from if release else None),
            scope=release.scope if release else None,
        )

    def _content_variables(self, environment: EnvironmentEntry) -> variables.ContentVariables:
        content, site = environment.manifest.spec.content, self.site_of(environment)
        defaults = self.platform.spec.wordpress
        return variables.ContentVariables(
            id=str(self.content_id(environment)),
            origin=content.origin if content else "install",
            title=(content and content.title) or (site.name if site else environment.site),
            admin_user=(content and content.admin_user) or defaults.admin_user,
            admin_email=(content and content.admin_email) or defaults.admin_email,
            locale=content.locale if content else "en_US",
            source_environment=_text(content.source_environment if content else None),
            archive_url=content.archive_url if content else None,
            backup=_text(content.backup if content else None),
            preset=content.preset.value if content and content.preset else None,
            search=content.search if content else None,
            replace=content.replace if content else None,
            tables=(content and content.tables) or None,
            groups=(content and content.groups) or None,
            guid=(content and content.guid) or None,
            include=(content and content.include) or None,
            exclude=(content and content.exclude) or None,
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
            pool=node.manifest.spec.pool,
        )


def _egress_variable(spec: EnvironmentSpec) -> Literal["closed", "open"] | tuple[str, ...] | None:
    """An empty list lists nobody. Of production nothing is said."""
    if spec.type is EnvironmentType.PRODUCTION:
        return None
    return "closed" if spec.egress == () else spec.egress


def _internal_hosts(
    egress: Literal["closed", "open"] | tuple[str, ...] | None, allowed: tuple[str, ...]
) -> tuple[str, ...] | None:
    """What the platform allows to be internal, as far as it matters to what an environment lists."""
    if not isinstance(egress, tuple) or not egress:
        return None
    return tuple(one for one in allowed if one in egress or is_address(one)) or None


def _php_variables(php: Php) -> variables.PhpVariables:
    return variables.PhpVariables(
        memory_limit_mb=php.memory_limit_mb,
        max_children=php.max_children,
        upload_max_mb=php.upload_max_mb,
        max_execution_s=php.max_execution_s,
    )


def _resources_variables(own: Resources, common: Resources) -> variables.ResourcesVariables | None:
    """What is declared, here or for all; None where nothing is."""
    said = {**common.model_dump(exclude_none=True), **own.model_dump(exclude_none=True)}
    return variables.ResourcesVariables(**said) if said else None


def _health_variables(own: OwnHealthChecks, common: HealthChecks) -> variables.HealthVariables | None:
    """What differs from the defaults; None where nothing does."""
    defaults = HealthChecks()
    said = {name: getattr(own, name) or getattr(common, name) for name in variables.HealthVariables.model_fields}
    other = {name: value for name, value in said.items() if value != getattr(defaults, name)}
    return variables.HealthVariables(**other) if other else None


def preview_url(environment_id: UUID, address: str, platform: Platform) -> str:
    """The address that an environment answers at before it has a domain of its own."""
    label = environment_id.hex[:8]
    if platform.spec.preview_domain:
        return f"https://{label}.{platform.spec.preview_domain}"
    return f"http://{label}.{address.replace('.', '-').replace(':', '-')}.sslip.io"


def assemble(revision: str, parsed: Iterable[Parsed | Stalled | None]) -> Fleet:
    """The fleet of these documents, each held against the others. Order of ``parsed`` doesn't matter."""
    items = list(parsed)
    entries = sorted((item for item in items if isinstance(item, Entry)), key=lambda entry: entry.path)
    fleet = _fleet(revision, entries, [item for item in items if isinstance(item, Stalled)])
    problems = problems_of(entries, fleet)
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
        stalled=tuple(sorted(stalled, key=lambda item: (item.path, item.place or (0,)))),
    )


def _found(entries: Mapping[UUID, _E], id_: UUID, noun: str) -> _E:
    if id_ not in entries:
        raise NotFound(f"No {noun} has the id {id_}. List them to see which there are.")
    return entries[id_]


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None


def _production_first(environment: EnvironmentEntry) -> tuple[bool, str]:
    return (environment.manifest.spec.type is not EnvironmentType.PRODUCTION, environment.slug)
