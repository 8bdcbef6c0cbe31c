"""The documents of the store: Platform, Node, Site, Environment.

These models are the only definition of desired state; the JSON Schemas in ``contracts/schemas`` are made from
them. This module knows the shape of one document and nothing of the others: see ``fleet`` for references.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID, uuid5

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Discriminator,
    EmailStr,
    Field,
    StrictBool,
    StringConstraints,
    Tag,
    model_validator,
)

from reconciler.core.fields import (
    Address,
    Cron,
    DisplayName,
    HostKey,
    Hostname,
    HttpUrl,
    Slug,
    Strict,
    Version,
)
from reconciler.core.forge import Forge
from reconciler.core.options import Options
from reconciler.core.policy import EnvironmentReconcile, NodeReconcile, PlatformReconcile
from reconciler.core.promotion_selection import MOST_SELECTORS, Selector
from reconciler.core.promotion_selection import refusal as unsound
from reconciler.core.receivers import Reports
from reconciler.core.replacement import LONGEST, MOST_TABLES, SHORTEST, TableGroup, TableName, refusal
from reconciler.core.tls import PreviewTls, Tls

API_VERSION = "trueup/v1"
PATH_NAMESPACE = UUID("7f1c6f0e-51ad-5f0a-9c39-3a7d1d5c2b11")
"""Namespace of the ids of documents that name none: ``uuid5(PATH_NAMESPACE, path)``."""


class EnvironmentType(StrEnum):
    """What an environment is for; exactly one of a site's environments is ``production``."""

    PRODUCTION = "production"
    STAGING = "staging"
    CLONE = "clone"


class PromotionPreset(StrEnum):
    CONTENT_PROTECT = "content-protect"
    COMMERCE_PROTECT = "commerce-protect"


class Metadata(Strict):
    id: UUID | None = Field(default=None, description="Left out: the UUIDv5 of the document's path.")
    name: DisplayName | None = Field(default=None, description="Shown to people; left out: the slug.")


class WordPressDefaults(Strict):
    version: Version = Field(default="7.1.1", description="WordPress version of new sites.")
    admin_user: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{1,30}$")] = "trueup"
    admin_email: EmailStr = "webmaster@example.com"


class BackupScope(StrEnum):
    DB = "db"
    FILES = "files"
    FULL = "full"


class DrillEvery(StrEnum):
    """How often an environment's newest backup is restored into a throwaway copy."""

    NEVER = "never"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class Drill(Strict):
    """Whether backups are tried, and what is asked of that."""

    every: DrillEvery = Field(
        default=DrillEvery.WEEKLY,
        description="How often an environment's newest backup is restored into a throwaway copy and checked.",
    )
    required_for_promotion: StrictBool = Field(
        default=False, description="A promotion is refused unless its target's last drill passed, and is recent."
    )


class OwnDrill(Strict):
    """What this environment wants otherwise than the platform."""

    every: DrillEvery | None = None
    required_for_promotion: StrictBool | None = None


class ObjectStore(Strict):
    """An S3-compatible service, and whose keys are used there."""

    endpoint: HttpUrl = Field(description="Address of the storage service, without the bucket.")
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] = "us-east-1"
    credentials: Slug = Field(default="backups", description="Name of the secret with access_key and secret_key.")


class Storage(ObjectStore):
    """S3-compatible storage, and what is kept there of every environment that says nothing else."""

    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, StringConstraints(pattern=r"^(?:[A-Za-z0-9._-]+/)*$")] = Field(
        default="", description="In front of every key; empty, or ending in a slash."
    )
    schedule: Cron | None = Field(default=None, description="When environments are backed up (UTC); left out: never.")
    scope: BackupScope = BackupScope.FULL
    retention_days: int = Field(default=30, ge=1, le=3650)
    drill: Drill = Drill()


class Imports(Strict):
    allowed_hosts: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9.:-]{1,253}$")], ...] = Field(
        default=(), description="Names or addresses that an archive may come from although they are internal."
    )


class CodeSources(Strict):
    s3: ObjectStore | None = Field(default=None, description="Where s3:// leads; left out: the storage of backups.")


class Updates(Strict):
    mirror: HttpUrl = Field(
        default="https://api.wordpress.org",
        description="Where updates come from: a server that answers as WordPress's own update API does.",
    )


class HealthChecks(Strict):
    interval_s: int = Field(default=300, ge=5, le=86_400, description="Seconds between two looks at an environment.")
    timeout_s: int = Field(default=10, ge=2, le=60, description="Seconds that each check may take.")
    slow_timeout_s: int = Field(
        default=60,
        ge=2,
        le=300,
        description="Most seconds of a new release's page, which may take four times as long as the served one's.",
    )


class OwnHealthChecks(Strict):
    """What this environment wants otherwise than the platform."""

    interval_s: int | None = Field(default=None, ge=5, le=86_400)
    timeout_s: int | None = Field(default=None, ge=2, le=60)
    slow_timeout_s: int | None = Field(default=None, ge=2, le=300)


def _signer(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._@+-]+ (?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*", text):
        raise ValueError("must be a name and an ssh public key: ada@example.com ssh-ed25519 AAAA…")
    return text


Signer = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_signer)]


class Resources(Strict):
    """The most that all processes of an environment take together; what is left out follows from its PHP."""

    memory_mb: int | None = Field(default=None, ge=256, le=1_048_576)
    tasks: int | None = Field(default=None, ge=64, le=65_536, description="Processes and threads.")
    cpu_weight: int | None = Field(
        default=None, ge=1, le=10_000, description="Share of the processors beside others; left out: 100."
    )
    io_weight: int | None = Field(
        default=None, ge=1, le=10_000, description="Share of the disks beside others; left out: 100."
    )


class PlatformSpec(Strict):
    preview_domain: Hostname | None = None
    preview_tls: PreviewTls | None = Field(
        default=None, description="Left out: the TLS of preview URLs stands in front of the nodes."
    )
    wordpress: WordPressDefaults = WordPressDefaults()
    backups: Storage | None = Field(default=None, description="Left out: nothing can be backed up.")
    imports: Imports = Imports()
    sources: CodeSources = CodeSources()
    updates: Updates = Updates()
    health: HealthChecks = HealthChecks()
    resources: Resources = Field(
        default=Resources(), description="Of each environment that says nothing else; left out: what its PHP needs."
    )
    tls: Tls = Tls()
    reconcile: PlatformReconcile = PlatformReconcile()
    allowed_signers: tuple[Signer, ...] = Field(
        default=(),
        max_length=1000,
        description="Who may sign what comes from upstream; left out: nothing need be signed. See docs/upstream.md.",
    )

    @model_validator(mode="after")
    def _preview_is_in_its_zone(self) -> Self:
        if self.preview_tls is None:
            return self
        if self.preview_domain is None:
            raise ValueError("preview_tls needs preview_domain: the domain that the certificate is for")
        if not f".{self.preview_domain}".endswith(f".{self.preview_tls.zone}"):
            raise ValueError(f"preview_domain {self.preview_domain} is not in preview_tls.zone {self.preview_tls.zone}")
        return self

    reports: Reports = Reports()
    forge: Forge | None = Field(default=None, description="Left out: nobody is told there what became of a commit.")


class Platform(Strict):
    """What holds for the whole fleet. Path: ``platform.yaml``."""

    apiVersion: Literal["trueup/v1"]  # noqa: N815 (the field's standard name)
    kind: Literal["Platform"]
    metadata: Metadata = Metadata()
    spec: PlatformSpec = PlatformSpec()


class Ssh(Strict):
    host_key: HostKey = Field(description="The pinned public host key; `trueup node add` puts it here.")
    port: int = Field(default=22, ge=1, le=65535)
    user: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] = "root"


class Redis(Strict):
    memory_percent: int = Field(default=10, ge=1, le=50, description="Redis's limit, in percent of RAM.")


class NodeSpec(Strict):
    address: Address = Field(description="The node's public IP address.")
    ssh: Ssh
    state: Literal["active", "decommissioned"] = "active"
    concurrency: int = Field(default=1, ge=1, le=16, description="Jobs that may work on the node at once.")
    pool: int = Field(default=1, ge=0, le=16, description="WordPress trees that are kept ready for new sites; 0: none.")
    redis: Redis = Redis()
    reconcile: NodeReconcile = NodeReconcile()


class Node(Strict):
    """A managed Linux host. Path: ``nodes/<name>.yaml``."""

    apiVersion: Literal["trueup/v1"]  # noqa: N815
    kind: Literal["Node"]
    metadata: Metadata = Metadata()
    spec: NodeSpec


class SiteSpec(Strict):
    pass


class Site(Strict):
    """A WordPress project. Path: ``sites/<slug>/site.yaml``."""

    apiVersion: Literal["trueup/v1"]  # noqa: N815
    kind: Literal["Site"]
    metadata: Metadata = Metadata()
    spec: SiteSpec = SiteSpec()


class WordPress(Strict):
    version: Version


UpdateScope = Literal["core", "plugins", "themes", "all"]


class Release(Strict):
    """Where the code comes from; a new id is a new release."""

    id: UUID
    source_type: Literal["git", "upload"] | None = Field(
        default=None, description="Left out, and no origin either: WordPress core alone."
    )
    source_ref: str | None = Field(default=None, max_length=2048)
    revision: str | None = Field(default=None, max_length=128, description="What source_ref was resolved to.")
    origin: Literal["clone", "import", "restore", "promote", "update", "adopt", "discard"] | None = Field(
        default=None, description="The operation that made this tree of another one; left out: made of its source."
    )
    made_from: UUID | None = Field(
        default=None,
        description="clone, promote: the environment; update, adopt, discard: the release; restore: the backup; "
        "import: the content.",
    )
    scope: UpdateScope | None = Field(default=None, description="update: what was updated.")


class Content(Strict):
    """Where database and uploads came from; the node applies each id once."""

    id: UUID
    origin: Literal["install", "clone", "import", "restore", "promote", "search-replace"] = "install"
    title: DisplayName | None = None
    admin_user: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{1,30}$")] | None = None
    admin_email: EmailStr | None = None
    locale: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(_[A-Z]{2})?$")] = "en_US"
    source_environment: UUID | None = Field(default=None, description="clone, promote: where it came from.")
    archive_url: Annotated[str, StringConstraints(pattern=r"^https?://", max_length=2048)] | None = Field(
        default=None, description="import: the archive."
    )
    backup: UUID | None = Field(default=None, description="restore: the backup.")
    preset: PromotionPreset | None = Field(default=None, description="promote: what is protected.")
    include: tuple[Selector, ...] = Field(
        default=(), max_length=MOST_SELECTORS, description="promote: what alone moves; left out: all."
    )
    exclude: tuple[Selector, ...] = Field(default=(), max_length=MOST_SELECTORS, description="promote: what stays.")
    search: Annotated[str, StringConstraints(min_length=SHORTEST, max_length=LONGEST)] | None = Field(
        default=None, description="search-replace: the text that is looked for."
    )
    replace: Annotated[str, StringConstraints(max_length=LONGEST)] | None = Field(
        default=None, description="search-replace: what stands in its place."
    )
    tables: tuple[TableName, ...] = Field(
        default=(), max_length=MOST_TABLES, description="search-replace: tables, with or without wp_."
    )
    groups: tuple[TableGroup, ...] = Field(
        default=(), max_length=5, description="search-replace: groups of tables; without tables and groups, all."
    )
    guid: StrictBool = Field(default=False, description="search-replace: whether the column guid changes, too.")

    @model_validator(mode="after")
    def _says_where_from(self) -> Self:
        needed = _NEEDED.get(self.origin)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"{needed} is required where origin is {self.origin}")
        if why := unsound(self.include, self.exclude):
            raise ValueError(why)
        if self.origin == "search-replace":
            if self.search is None or self.replace is None:
                raise ValueError("search and replace are required where origin is search-replace")
            if why := refusal(self.search, self.replace):
                raise ValueError(why)
        return self


_NEEDED = {"clone": "source_environment", "promote": "source_environment", "import": "archive_url", "restore": "backup"}


class Domain(Strict):
    """A hostname of its own, with a certificate."""

    id: UUID | None = Field(default=None, description="Left out: the UUIDv5 of the environment's id and the hostname.")
    hostname: Hostname
    tls: StrictBool = Field(
        default=True, description="False: no certificate, plain http; what stands in front may speak https."
    )


class Backups(Strict):
    """What this environment wants otherwise than the platform."""

    schedule: Cron | None = None
    scope: BackupScope | None = None
    retention_days: int | None = Field(default=None, ge=1, le=3650)
    drill: OwnDrill = OwnDrill()


class Versions(Strict):
    """What the declared release's update resulted in, by slug: a record. It goes when other code is declared."""

    plugins: dict[str, str] = Field(default={})
    themes: dict[str, str] = Field(default={})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # Documents are never changed in place: the default is one for all of them, not a copy for each.
        return self


CookieName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,64}$")]


class Cache(Strict):
    fastcgi: StrictBool = True
    redis: StrictBool = True
    vary_cookies: tuple[CookieName, ...] = Field(
        default=(),
        max_length=8,
        description="Cookies by whose values pages differ, such as a currency's: each value has pages of its own.",
    )

    @model_validator(mode="after")
    def _each_cookie_once(self) -> Cache:
        if twice := [name for name in self.vary_cookies if self.vary_cookies.count(name) > 1]:
            raise ValueError(f"{twice[0]} is named twice in vary_cookies; remove one")
        return self


class Php(Strict):
    memory_limit_mb: int = Field(default=256, ge=64, le=4096)
    max_children: int = Field(default=8, ge=1, le=256)
    upload_max_mb: int = Field(default=64, ge=1, le=4096)
    max_execution_s: int = Field(default=60, ge=5, le=3600)


def _each_host_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is named twice in egress; remove one")
    return names


MOST_HOSTS = 32
Hosts = Annotated[tuple[Hostname, ...], Field(max_length=MOST_HOSTS), AfterValidator(_each_host_once)]
Egress = Annotated[
    Annotated[Literal["closed", "open"], Tag("word")] | Annotated[Hosts, Tag("hosts")],
    # What is wrong is told of the one that was meant.
    Discriminator(lambda value: "word" if isinstance(value, str) else "hosts"),
]


class EnvironmentSpec(Strict):
    type: EnvironmentType
    node: Slug
    wordpress: WordPress | None = Field(default=None, description="Left out: the platform's version.")
    release: Release | None = Field(default=None, description="Left out: an id made from the path.")
    content: Content | None = Field(default=None, description="Left out: an id made from the path.")
    source_environment: UUID | None = None
    promotion_preset: PromotionPreset | None = None
    preview_url: Annotated[str, StringConstraints(pattern=r"^https?://[a-z0-9.-]+$")] | None = Field(
        default=None, description="Written once when the environment is made; left out: derived."
    )
    cache: Cache = Cache()
    php: Php = Php()
    resources: Resources = Field(default=Resources(), description="What is left out is the platform's.")
    domains: tuple[Domain, ...] = Field(default=(), description="The first is the primary one; the others redirect.")
    backups: Backups = Backups()
    health: OwnHealthChecks = OwnHealthChecks()
    versions: Versions = Versions()
    options: Options = Field(default={}, description="WordPress's options that Git is the source of, by name.")
    files: Literal["writable", "locked"] = "writable"
    egress: Egress | None = Field(
        default=None,
        description="Whether its code reaches other hosts, or the names of those that it reaches. Left out: production "
        "reaches all, and a copy WordPress's own API alone. Never closed for production.",
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="When it is backed up and removed. Never for production."
    )
    reconcile: EnvironmentReconcile = EnvironmentReconcile()

    @model_validator(mode="after")
    def _production_stays(self) -> EnvironmentSpec:
        if self.expires_at and self.type is EnvironmentType.PRODUCTION:
            raise ValueError("a production environment goes with its site alone; remove expires_at")
        return self

    @model_validator(mode="after")
    def _production_reaches_others(self) -> EnvironmentSpec:
        if self.egress not in (None, "open") and self.type is EnvironmentType.PRODUCTION:
            raise ValueError("a production environment is never closed; remove egress")
        return self

    @model_validator(mode="after")
    def _each_name_once(self) -> EnvironmentSpec:
        names = [domain.hostname for domain in self.domains]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} is named twice in domains; remove one")
        return self


class Environment(Strict):
    """One running copy of a site. Path: ``sites/<site>/environments/<slug>.yaml``."""

    apiVersion: Literal["trueup/v1"]  # noqa: N815
    kind: Literal["Environment"]
    metadata: Metadata = Metadata()
    spec: EnvironmentSpec


Manifest = Platform | Node | Site | Environment

_PATHS: tuple[tuple[re.Pattern[str], type[Platform] | type[Node] | type[Site] | type[Environment]], ...] = (
    (re.compile(r"^platform\.yaml$"), Platform),
    (re.compile(r"^nodes/(?P<node>[^/]+)\.yaml$"), Node),
    (re.compile(r"^sites/(?P<site>[^/]+)/site\.yaml$"), Site),
    (re.compile(r"^sites/(?P<site>[^/]+)/environments/(?P<environment>[^/]+)\.yaml$"), Environment),
)


def model_for(path: str) -> type[Platform] | type[Node] | type[Site] | type[Environment] | None:
    """The model of the document at ``path``; None where the layout knows no document."""
    return next((model for pattern, model in _PATHS if pattern.match(path)), None)


def slugs_of(path: str) -> dict[str, str]:
    """The slugs that a document's path gives: any of ``node``, ``site``, ``environment``."""
    for pattern, _ in _PATHS:
        if match := pattern.match(path):
            return match.groupdict()
    return {}


def id_of(path: str, metadata: Metadata) -> UUID:
    """The document's id: as written, or made from its path."""
    return metadata.id or uuid5(PATH_NAMESPACE, path)


def json_schema(model: type[Any]) -> dict[str, Any]:
    """JSON Schema (2020-12) of one document kind, as ``contracts/schemas/<kind>.json`` holds it."""
    schema: dict[str, Any] = model.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
