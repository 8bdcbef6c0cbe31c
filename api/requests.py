"""Request bodies, exactly as the contract has them: unknown fields and values of another type are refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, model_validator

from api.forms import ARCHIVE_URL, EMAIL, SOURCE_REF
from reconciler.core.errors import Invalid
from reconciler.core.fields import DisplayName, Hostname, Slug
from reconciler.core.manifests import BackupScope, EnvironmentType, PromotionPreset, UpdateScope
from reconciler.core.promotion_selection import MOST_SELECTORS, Selector
from reconciler.core.replacement import (
    LONGEST,
    MOST_TABLES,
    SEARCH_PATTERN,
    SHORTEST,
    TEXT_PATTERN,
    Replacement,
    TableGroup,
    TableName,
)

HeldName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Password = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Lenient(_Body):
    """For fields that JSON can only say as text: ids, times and words of a list."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True)


class LoginRequest(_Body):
    email: Annotated[str, StringConstraints(pattern=EMAIL, max_length=254)]
    password: Password


class CreateSiteRequest(_Body):
    name: DisplayName
    slug: Slug


class CreateEnvironmentRequest(_Lenient):
    name: DisplayName
    slug: Slug
    type: EnvironmentType
    source_environment_id: UUID | None = None
    promotion_preset: PromotionPreset | None = None
    node_id: UUID | None = None


class PromoteRequest(_Lenient):
    target_environment_id: UUID
    include: tuple[Selector, ...] = Field(default=(), max_length=MOST_SELECTORS)
    exclude: tuple[Selector, ...] = Field(default=(), max_length=MOST_SELECTORS)


class SearchReplaceRequest(_Lenient):
    """``from`` is a word of Python's own."""

    search: str = Field(alias="from", pattern=SEARCH_PATTERN, min_length=SHORTEST, max_length=LONGEST)
    replace: str = Field(alias="to", pattern=TEXT_PATTERN, max_length=LONGEST)
    tables: tuple[TableName, ...] = Field(default=(), max_length=MOST_TABLES)
    groups: tuple[TableGroup, ...] = Field(default=(), max_length=5)
    guid: StrictBool = False
    dry_run: StrictBool = True

    @property
    def wanted(self) -> Replacement:
        return Replacement.model_validate(self.model_dump(exclude={"dry_run"}))


class DeployRequest(_Lenient):
    source_type: Literal["git", "upload"]
    source_ref: Annotated[str, StringConstraints(pattern=SOURCE_REF, min_length=1, max_length=2048)]


class RollbackRequest(_Lenient):
    release_id: UUID | None = None


class ReleaseRequest(_Lenient):
    """Absent is all; ``null`` the contract refuses."""

    names: Annotated[tuple[HeldName, ...], Field(min_length=1, max_length=100)] = ()


class UpdateRequest(_Lenient):
    scope: UpdateScope


class BackupRequest(_Lenient):
    backup_scope: BackupScope


class RestoreRequest(_Lenient):
    backup_id: UUID


class ImportRequest(_Body):
    archive_url: Annotated[str, StringConstraints(pattern=ARCHIVE_URL, max_length=2048)]


class DomainRequest(_Body):
    hostname: Hostname


class CacheRequest(_Body):
    """Absent is not ``null``, which the contract refuses: ask ``given`` for what the client said."""

    fastcgi_cache_enabled: bool = False
    redis_cache_enabled: bool = False

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give fastcgi_cache_enabled, redis_cache_enabled, or both")
        return self

    def given(self, field: str) -> bool | None:
        """The field's value; None where the client left it out."""
        return getattr(self, field) if field in self.model_fields_set else None


async def no_body(request: Request) -> None:
    """For operations that take no body: an empty one or ``{}`` is fine, anything else says something we'd ignore."""
    if (await request.body()).strip() not in {b"", b"{}"}:
        raise Invalid("This operation takes no body. Send it without one.")


async def no_null(request: Request) -> None:
    """For operations whose body may be left out: ``null`` in its place says nothing that the contract knows."""
    if (await request.body()).strip() == b"null":
        raise Invalid("null is no body of this operation. Send an object, or no body.")
