"""``spec.forge``: where the followed repository lives, so that what became of a commit can be told there."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from reconciler.core.fields import Certificates, HttpUrl, Slug, Strict

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_REPOSITORY = rf"^{_NAME}(?:/{_NAME})+$"


class ForgeKind(StrEnum):
    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    """Forgejo, too."""


class Forge(Strict):
    """The forge's API, and which repository there is the one that the store follows."""

    kind: ForgeKind = Field(description="`gitea` is for Forgejo, too.")
    api: HttpUrl = Field(
        description="https://api.github.com, https://gitlab.example.com/api/v4, https://git.example.com/api/v1."
    )
    repository: Annotated[
        str,
        StringConstraints(max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$"),
    ] = Field(description="owner/name; on GitLab with all its groups.")
    credentials: Slug = Field(default="forge", description="Name of the secret with `token`.")
    dashboard: HttpUrl | None = Field(default=None, description="Where a commit's status leads to; left out: nowhere.")
    ca_bundle: Certificates | None = Field(
        default=None, description="Certificates that a forge of one's own is trusted by; PEM."
    )

    @model_validator(mode="after")
    def _keeps_the_token(self) -> Self:
        if self.api.startswith("http://") and not _is_this_host(self.api):
            raise ValueError("api must be https: by http the token would be sent in the clear")
        if not re.fullmatch(r"https?://[^?#]+", self.api):
            raise ValueError("api must have neither ? nor #")
        return self

    @model_validator(mode="after")
    def _names_one_repository(self) -> Self:
        if self.kind is not ForgeKind.GITLAB and self.repository.count("/") != 1:
            raise ValueError(f"repository must be owner/name on {self.kind}")
        return self


def _is_this_host(url: str) -> bool:
    found = re.match(r"http://(?:\[([0-9a-fA-F:.]+)\]|([^/:]+))", url)
    host = (found[1] or found[2]) if found else ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
