"""What the playbooks are told: the one dict variable of each role, complete and typed.

``trueup_node`` for role ``node``, ``trueup_environment`` for role ``environment``. A test holds these models
against the roles' ``meta/argument_specs.yml`` both ways. A settings' digest says whether a node was configured
from the same settings: sha256 of the canonical JSON, leaving out ``job``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

DEFAULT_POOL = 1
_LATER = frozenset({"resources", "health", "egress", "internal_hosts", "vary_cookies"})
"""Came after the first environments were configured: none of them is configured anew for what it does not say."""

_OF_AN_OPERATION = frozenset({"search", "replace", "tables", "groups", "guid", "include", "exclude"})

Reach = Literal["closed", "open but for mail", "open"]


class _Variables(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def settings(self) -> dict[str, Any]:
        """All but ``job``, as JSON data."""
        return self.model_dump(mode="json", exclude={"job"})

    def digest(self) -> str:
        return self._settings_digest

    @cached_property
    def _settings_digest(self) -> str:
        return digest_of(self.settings())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("_settings_digest", None)
        return copied


class Job(_Variables):
    """Who runs: the fence decides between two runs of which one is late. None: an operator by hand."""

    id: str
    fence: int


def reach_of(type_: str | None, egress: object) -> Reach:
    """Whom the code of an environment of this type and ``spec.egress`` reaches; hosts that are listed are not told."""
    if type_ == "production":
        return "open"
    return "open but for mail" if egress == "open" else "closed"


class ReleaseVariables(_Variables):
    id: str
    source_type: Literal["git", "upload"] | None
    source_ref: str | None
    revision: str | None
    origin: Literal["clone", "import", "restore", "promote", "update", "adopt", "discard"] | None = None
    made_from: str | None = None
    scope: Literal["core", "plugins", "themes", "all"] | None = None


class ContentVariables(_Variables):
    id: str
    origin: Literal["install", "clone", "import", "restore", "promote", "search-replace"]
    title: str
    admin_user: str
    admin_email: str
    locale: str
    source_environment: str | None = None
    archive_url: str | None = None
    backup: str | None = None
    preset: Literal["content-protect", "commerce-protect"] | None = None
    search: str | None = None
    replace: str | None = None
    tables: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    guid: bool | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None

    @model_serializer(mode="wrap")
    def _without_later_ones(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = serialize(self)
        return {name: value for name, value in data.items() if name not in _OF_AN_OPERATION or value is not None}


class DomainVariables(_Variables):
    id: str
    hostname: str
    tls: bool = True


class TlsVariables(_Variables):
    directory: str
    email: str | None
    ca_bundle: str | None
    resolvers: tuple[str, ...]


class PhpVariables(_Variables):
    memory_limit_mb: int
    max_children: int
    upload_max_mb: int
    max_execution_s: int


class _Said(_Variables):
    """What is not said is not there."""

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = serialize(self)
        return {name: value for name, value in data.items() if value is not None}


class ResourcesVariables(_Said):
    memory_mb: int | None = None
    tasks: int | None = None
    cpu_weight: int | None = None
    io_weight: int | None = None


class HealthVariables(_Said):
    """What differs from the defaults."""

    timeout_s: int | None = None
    slow_timeout_s: int | None = None


class EnvironmentVariables(_Variables):
    """``trueup_environment``: all that one environment's server-side shape follows from."""

    id: str
    site: str
    slug: str
    type: Literal["production", "staging", "clone"]
    url: str
    """The preview URL: scheme and host, no trailing slash. WordPress's address while no domain is ready."""
    hostnames: tuple[str, ...]
    """Every name that nginx answers to; the first is the url's."""
    wordpress_version: str
    release: ReleaseVariables
    content: ContentVariables
    fastcgi_cache: bool
    redis_cache: bool
    php: PhpVariables
    files: Literal["writable", "locked"]
    options: dict[str, str] = {}
    """WordPress's options that are declared, by name, as they are stored. All others are WordPress's own."""
    domains: tuple[DomainVariables, ...] = ()
    """The first is the primary one. WordPress's address is the first that is ready."""
    tls: TlsVariables | None = None
    """Where certificates come from; None where no domain needs one."""
    resources: ResourcesVariables | None = None
    """The most that it takes; None, which is not written down, for what its PHP needs: it came later."""
    health: HealthVariables | None = None
    """How long its health checks take at most; None, which is not written down, for the defaults."""
    egress: Literal["closed", "open"] | tuple[str, ...] | None = None
    """Whether a copy's code reaches other hosts, or which ones; None, which is not written down: as its type has it."""
    internal_hosts: tuple[str, ...] | None = None
    """Listed hosts, and addresses, that an operator lets be internal; None, which is not written down, for none."""
    vary_cookies: tuple[str, ...] | None = None
    """Cookies by whose values kept pages differ; None, which is not written down, for none."""
    job: Job | None = None

    @property
    def is_closed(self) -> bool:
        """Whether its code reaches no host but those of a list. Production never is, a copy is unless it is opened."""
        return self.reach == "closed"

    @property
    def reach(self) -> Reach:
        """Whom its code reaches: mail of whatever is not production reaches nobody, also where it is opened."""
        return reach_of(self.type, self.egress)

    @model_serializer(mode="wrap")
    def _without_later_ones(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = serialize(self)
        return {name: value for name, value in data.items() if name not in _LATER or value is not None}


class NodeVariables(_Variables):
    """``trueup_node``: all that a node's baseline follows from."""

    id: str
    name: str
    address: str
    ssh_port: int
    redis_memory_percent: int
    wordpress_version: str
    """Kept ready for new sites: the platform's version."""
    pool: int = DEFAULT_POOL
    """How many trees of it. The default is not written down: it came later, and no node is configured anew for it."""
    job: Job | None = None

    @model_serializer(mode="wrap")
    def _without_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = serialize(self)
        return {name: value for name, value in data.items() if name != "pool" or value != DEFAULT_POOL}


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(settings: Mapping[str, Any]) -> str:
    """sha256 in hex of the settings' canonical JSON: sorted keys, no spaces, UTF-8."""
    return hashlib.sha256(_CANONICAL.encode(settings).encode()).hexdigest()
