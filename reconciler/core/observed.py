"""What a node answered. ``Unreachable`` is not ``Missing``, and neither is an empty answer.

The shapes are the probe's (``nodes/probe.py``): one JSON object per node, all its environments in it. A node is a
stranger: each text, number and collection has a bound. ``core/node_answer.py`` reads what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from reconciler.core.variables import Reach

_YEARS = range(1970, 9000)


def _sane(moment: datetime) -> datetime:
    """A moment that can be reckoned with."""
    if moment.year not in _YEARS:
        raise ValueError("is no moment of these times")
    return moment


Word = Annotated[str, StringConstraints(max_length=255)]
"""A name, a version, a state, a digest."""
Line = Annotated[str, StringConstraints(max_length=1_024)]
Path = Annotated[str, StringConstraints(max_length=4_352)]
"""A path, perhaps with the id of a section behind it."""
Prose = Annotated[str, StringConstraints(max_length=8_192)]
Value = Annotated[str, StringConstraints(max_length=65_536)]
"""An option of WordPress."""
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Moment = Annotated[AwareDatetime, AfterValidator(_sane)]
Count = Annotated[int, Field(ge=0, le=(1 << 63) - 1)]
_Few, _Some, _Many = Field(max_length=64), Field(max_length=1_000), Field(max_length=100_000)


class _Observed(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class AppliedBy(_Observed):
    """Who ran the apply: a job, or an operator by hand."""

    job: Word | None = None
    operator: Word | None = None


class Applied(_Observed):
    """The manifest that applying wrote on the node: what was asked for and what was put there."""

    format: Literal[1]
    variables: dict[str, Any]
    """The role's variable as it was applied, without ``job``."""
    digest: Word
    """``digest_of`` those variables."""
    role_digest: Word
    """sha256 over the role's templates and modules: another Trueup version writes other files."""
    files: Annotated[dict[Path, Word], _Some]
    """Managed files: path to sha256 in hex."""
    links: Annotated[dict[Path, Path], _Some] = {}
    """Managed symbolic links: path to target."""
    services: Annotated[tuple[Word, ...], _Some] = ()
    """Units that must be active and enabled."""
    applied_at: Moment
    applied_by: AppliedBy | None = None
    releases: Annotated[tuple[Word, ...], _Some] = ()
    """Release ids that were applied, oldest first."""
    release_details: Annotated[dict[Word, dict[str, Any]], _Some] = {}
    """What each of them was made of: ``spec.release`` without its id, ``wordpress_version``, ``unmanaged``."""
    contents: Annotated[tuple[Word, ...], _Many] = ()
    """Content ids that were applied, oldest first."""
    options: Annotated[dict[Word, Value], _Some] = {}
    """Declared options as WordPress stored them then; it may have cleaned what was declared."""
    url: Line | None = None
    """The address that WordPress was given: the first ready domain's, else the preview URL."""

    @property
    def release_id(self) -> str | None:
        """The release that is served; None where the variables do not say."""
        release = self.variables.get("release")
        return _text(release.get("id")) if isinstance(release, Mapping) else None

    @property
    def wordpress_version(self) -> str | None:
        """That it was applied with."""
        return _text(self.variables.get("wordpress_version"))

    @property
    def content_origin(self) -> str | None:
        """What made the content that is served."""
        content = self.variables.get("content")
        return _text(content.get("origin")) if isinstance(content, Mapping) else None

    @property
    def hostnames(self) -> tuple[str, ...]:
        """Its own domains, as they were declared."""
        domains = self.variables.get("domains")
        listed = domains if isinstance(domains, (list, tuple)) else ()
        names = (_text(one.get("hostname")) for one in listed if isinstance(one, Mapping))
        return tuple(name for name in names if name is not None)

    def made_with(self, release: str) -> str | None:
        """The WordPress version that a release stands on; None where nothing says so."""
        return _text(self.release_details.get(release, {}).get("wordpress_version"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class Service(_Observed):
    active: Word
    """systemd's ActiveState: active, inactive, failed, activating …"""
    enabled: Word
    """systemd's UnitFileState: enabled, disabled, masked, static …, or empty."""


class FileDifference(_Observed):
    """A file that is not what its manifest says (deep observation only)."""

    path: Path
    kind: Literal["modified", "missing", "unknown"]
    area: Literal["core", "release", "uploads"]


class Served(_Observed):
    """The certificate that nginx gives for a name: shaken hands with, not read from a file."""

    issuer: Line
    not_before: Moment
    not_after: Moment
    names_match: bool
    """It is for this name."""
    is_kept: bool = True
    """It is the one that lies on the node's disk."""


class CertificateFailure(_Observed):
    """The last attempt to get a certificate, if none succeeded since."""

    code: Word
    message: Prose
    at: Moment
    count: Count
    """How many in a row."""


class ObservedDomain(_Observed):
    served: Served | None = None
    failure: CertificateFailure | None = None


class ObservedHost(_Observed):
    """A host that a closed environment lists."""

    addresses: Annotated[tuple[Word, ...], _Few] = ()
    """Those that it is let through to by name; none where nothing fit is known."""
    error: Line | None = None
    """Why it was not found, or is not let through to, when it was looked up last; None: it is."""


class ObservedEgress(_Observed):
    """What the node's firewall does with packets of the environment's user."""

    closed: bool
    """None reaches another host, or a neighbour. What is there, whatever was applied."""
    refuses_mail: bool | None = None
    """None reaches a port of mail, either; None: the probe is of an earlier version."""
    refused: Count | None = None
    """Packets that were refused since the rules were loaded; None where none is."""
    hosts: Annotated[dict[Word, ObservedHost], _Few] = {}
    """Those that it reaches although it is closed, by name."""

    @property
    def reach(self) -> Reach:
        """As ``EnvironmentVariables.reach``, of what is there."""
        if self.closed:
            return "closed"
        return "open but for mail" if self.refuses_mail else "open"


class ObservedEnvironment(_Observed):
    applied: Applied | None
    pending: bool = False
    """An apply began and did not end."""
    files: Annotated[dict[Path, Word | None], _Some] = {}
    """sha256 now, per managed file; None: not there."""
    links: Annotated[dict[Path, Path | None], _Some] = {}
    services: Annotated[dict[Word, Service], _Some] = {}
    database: bool = False
    wordpress_version: Word | None = None
    differences: Annotated[tuple[FileDifference, ...], _Many] | None = None
    """None unless the observation was deep."""
    disk_used_bytes: Count | None = None
    """Of its files and its database; None unless the observation was deep, and where there is too much to count."""
    options: Annotated[dict[Word, Value | None], _Some] = {}
    """Declared options as they are stored now; None: there is none. One that isn't here could not be read."""
    domains: Annotated[dict[Word, ObservedDomain], _Some] = {}
    """By hostname, those that were applied with a certificate."""
    egress: ObservedEgress | None = None
    """None: it has no user, or the probe is of an earlier version."""
    stopped: Annotated[dict[Word, Count], _Few] = {}
    """Of a copy, what it was kept from doing, by kind (``mails``), as its own code has counted it."""


class OnPrivateAddress(_Observed):
    """A release that was asked by PHP's own socket, without nginx: whether it makes the home page."""

    release: Id
    answers: bool


class ObservedHealth(_Observed):
    """What one look at an environment found (``module_utils/health.py``)."""

    release: Word
    """The release that is served; whatever the node calls it."""
    health: Literal["unknown", "healthy", "unhealthy"]
    reason: Prose | None = None
    """Why it is not healthy, in words for a person."""
    checks: Annotated[dict[Word, Prose | None], _Few] = {}
    """``page``, ``wordpress``, ``database``: None where all is well, else what is wrong."""
    alone: bool | None = None
    """Of an unhealthy one: whether its release makes the home page on its private address."""
    previous: OnPrivateAddress | None = None
    """Of an unhealthy one: the release before it, if the node still has one."""


class ObservedPreview(_Observed):
    """The certificate of preview URLs, as it was put on a node and as it is there."""

    domain: Word
    fingerprint: Word
    """sha256 of the certificate in hex."""
    files: Annotated[dict[Path, Word], _Few]
    """sha256 when they were put there, by path."""
    found: Annotated[dict[Path, Word | None], _Few]
    """sha256 now; None: not there."""

    @property
    def altered(self) -> tuple[str, ...]:
        """Paths of files that are gone or hold something else."""
        return tuple(sorted(path for path, digest in self.files.items() if self.found.get(path) != digest))


class SshLogin(_Observed):
    """Somebody whom sshd let in, as the node's journal has it."""

    at: Moment
    user: Word
    address: Word
    key: Word | None = None
    """The fingerprint of the key that they showed."""


class ObservedNode(_Observed):
    observed_at: Moment
    hostname: Word
    os_id: Word = ""
    os_version: Word = ""
    memory_bytes: Count = 0
    disk_free_bytes: Count = 0
    disk_size_bytes: Count = 0
    versions: Annotated[dict[Word, Word], _Few] = {}
    """Package versions of nginx, php, mariadb, redis, wp_cli; and ``probe``."""
    artifacts: Annotated[dict[Word, Annotated[tuple[Word, ...], _Some]], _Few] = {}
    hold: Prose | None = None
    """The reason in ``/etc/trueup/hold``: nobody but an operator changes this node now."""
    applied: Applied | None = None
    """The node role's manifest; None: never provisioned."""
    pending: bool = False
    files: Annotated[dict[Path, Word | None], _Some] = {}
    links: Annotated[dict[Path, Path | None], _Some] = {}
    services: Annotated[dict[Word, Service], _Some] = {}
    preview: ObservedPreview | None = None
    """None: the node has no certificate of preview URLs."""
    logins: Annotated[tuple[SshLogin, ...], _Some] = ()
    """Since the moment that the probe was told."""
    environments: dict[Id, ObservedEnvironment] = {}
    """By environment id. One that is neither here nor unusable is *missing* on this node: it answered and has none."""
    unusable: Annotated[dict[Line, Prose], _Many] = {}
    """By environment id, or what stands in its place: why what is said of it cannot be used. It is unknown then."""

    def about(self, environment_id: UUID) -> ObservedNode | Unreachable:
        """The answer as one about this environment: none, if what is said of it cannot be used."""
        reason = self.unusable.get(str(environment_id))
        return self if reason is None else Unreachable(since=self.observed_at, reason=reason)


class Unreachable(_Observed):
    """No answer, or none that could be understood: nothing is known, so nothing is decided."""

    since: AwareDatetime
    reason: str

    def about(self, environment_id: UUID) -> Unreachable:
        """Nothing is known of any environment."""
        return self


def reach(there: ObservedEnvironment | None) -> Literal["closed", "open", "unknown"]:
    """What an environment's code reaches, as it was seen."""
    if there is None or there.egress is None:
        return "unknown"
    return "closed" if there.egress.closed else "open"


def listed_hosts(there: ObservedEnvironment | None) -> dict[str, ObservedHost]:
    """The hosts that a closed environment reaches all the same, by name."""
    return there.egress.hosts if there is not None and there.egress and there.egress.closed else {}


def stopped(there: ObservedEnvironment | None) -> dict[str, int]:
    """How much a copy was kept from doing, by kind; what never happened is not there."""
    if there is None:
        return {}
    packets = there.egress.refused if there.egress else None
    return {kind: count for kind, count in {"packets": packets or 0, **there.stopped}.items() if count}
