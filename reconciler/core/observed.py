"""What a node answered. ``Unreachable`` is not ``Missing``, and neither is an empty answer.

The shapes are the probe's (``nodes/probe.py``): one JSON object per node, all its environments in it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict


class _Observed(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class AppliedBy(_Observed):
    """Who ran the apply: a job, or an operator by hand."""

    job: str | None = None
    operator: str | None = None


class Applied(_Observed):
    """The manifest that applying wrote on the node: what was asked for and what was put there."""

    format: Literal[1]
    variables: dict[str, Any]
    """The role's variable as it was applied, without ``job``."""
    digest: str
    """``digest_of`` those variables."""
    role_digest: str
    """sha256 over the role's templates and modules: another Trueup version writes other files."""
    files: dict[str, str]
    """Managed files: path to sha256 in hex."""
    links: dict[str, str] = {}
    """Managed symbolic links: path to target."""
    services: tuple[str, ...] = ()
    """Units that must be active and enabled."""
    applied_at: AwareDatetime
    applied_by: AppliedBy | None = None
    releases: tuple[str, ...] = ()
    """Release ids that were applied, oldest first."""
    release_details: dict[str, dict[str, Any]] = {}
    """What each of them was made of: ``spec.release`` without its id, ``wordpress_version``, ``unmanaged``."""
    contents: tuple[str, ...] = ()
    """Content ids that were applied, oldest first."""
    options: dict[str, str] = {}
    """Declared options as WordPress stored them then; it may have cleaned what was declared."""
    url: str | None = None
    """The address that WordPress was given: the first ready domain's, else the preview URL."""


class Service(_Observed):
    active: str
    """systemd's ActiveState: active, inactive, failed, activating …"""
    enabled: str
    """systemd's UnitFileState: enabled, disabled, masked, static …, or empty."""


class FileDifference(_Observed):
    """A file that is not what its manifest says (deep observation only)."""

    path: str
    kind: Literal["modified", "missing", "unknown"]
    area: Literal["core", "release", "uploads"]


class Served(_Observed):
    """The certificate that nginx gives for a name: shaken hands with, not read from a file."""

    issuer: str
    not_before: AwareDatetime
    not_after: AwareDatetime
    names_match: bool
    """It is for this name."""
    is_kept: bool = True
    """It is the one that lies on the node's disk."""


class CertificateFailure(_Observed):
    """The last attempt to get a certificate, if none succeeded since."""

    code: str
    message: str
    at: AwareDatetime
    count: int
    """How many in a row."""


class ObservedDomain(_Observed):
    served: Served | None = None
    failure: CertificateFailure | None = None


class ObservedEnvironment(_Observed):
    applied: Applied | None
    pending: bool = False
    """An apply began and did not end."""
    files: dict[str, str | None] = {}
    """sha256 now, per managed file; None: not there."""
    links: dict[str, str | None] = {}
    services: dict[str, Service] = {}
    database: bool = False
    wordpress_version: str | None = None
    differences: tuple[FileDifference, ...] | None = None
    """None unless the observation was deep."""
    disk_used_bytes: int | None = None
    """Of its files and its database; None unless the observation was deep."""
    options: dict[str, str | None] = {}
    """Declared options as they are stored now; None: there is none. One that isn't here could not be read."""
    domains: dict[str, ObservedDomain] = {}
    """By hostname, those that were applied with a certificate."""


class OnPrivateAddress(_Observed):
    """A release that was asked by PHP's own socket, without nginx: whether it makes the home page."""

    release: str
    answers: bool


class ObservedHealth(_Observed):
    """What one look at an environment found (``module_utils/health.py``)."""

    release: str
    """The release that is served; whatever the node calls it."""
    health: Literal["unknown", "healthy", "unhealthy"]
    reason: str | None = None
    """Why it is not healthy, in words for a person."""
    checks: dict[str, str | None] = {}
    """``page``, ``wordpress``, ``database``: None where all is well, else what is wrong."""
    alone: bool | None = None
    """Of an unhealthy one: whether its release makes the home page on its private address."""
    previous: OnPrivateAddress | None = None
    """Of an unhealthy one: the release before it, if the node still has one."""


class ObservedPreview(_Observed):
    """The certificate of preview URLs, as it was put on a node and as it is there."""

    domain: str
    fingerprint: str
    """sha256 of the certificate in hex."""
    files: dict[str, str]
    """sha256 when they were put there, by path."""
    found: dict[str, str | None]
    """sha256 now; None: not there."""

    @property
    def altered(self) -> tuple[str, ...]:
        """Paths of files that are gone or hold something else."""
        return tuple(sorted(path for path, digest in self.files.items() if self.found.get(path) != digest))


class SshLogin(_Observed):
    """Somebody whom sshd let in, as the node's journal has it."""

    at: AwareDatetime
    user: str
    address: str
    key: str | None = None
    """The fingerprint of the key that they showed."""


class ObservedNode(_Observed):
    observed_at: AwareDatetime
    hostname: str
    os_id: str = ""
    os_version: str = ""
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    disk_size_bytes: int = 0
    versions: dict[str, str] = {}
    """Package versions of nginx, php, mariadb, redis, wp_cli; and ``probe``."""
    artifacts: dict[str, tuple[str, ...]] = {}
    hold: str | None = None
    """The reason in ``/etc/trueup/hold``: nobody but an operator changes this node now."""
    applied: Applied | None = None
    """The node role's manifest; None: never provisioned."""
    pending: bool = False
    files: dict[str, str | None] = {}
    links: dict[str, str | None] = {}
    services: dict[str, Service] = {}
    preview: ObservedPreview | None = None
    """None: the node has no certificate of preview URLs."""
    logins: tuple[SshLogin, ...] = ()
    """Since the moment that the probe was told."""
    environments: dict[str, ObservedEnvironment] = {}
    """By environment id. An id that isn't here is *missing* on this node: it answered and has none."""


class Unreachable(_Observed):
    """No answer, or none that could be understood: nothing is known, so nothing is decided."""

    since: AwareDatetime
    reason: str
