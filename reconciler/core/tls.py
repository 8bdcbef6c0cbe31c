"""``spec.tls`` and ``spec.preview_tls`` of the platform: where certificates come from, and how names are proven."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, EmailStr, Field, StringConstraints

from reconciler.core.fields import Certificates, Hostname, HttpUrl, Slug, Strict


def _resolver(text: str) -> str:
    found = re.fullmatch(r"(?:\[([0-9a-f:]+)\]|([0-9.]+)|([0-9a-f:]+))(?::(\d{1,5}))?", text)
    if not found:
        raise ValueError("must be an address with or without a port: 192.0.2.53, 192.0.2.53:5353, [2001:db8::53]:5353")
    ip_address(next(part for part in found.groups()[:3] if part))
    return text


Resolver = Annotated[str, AfterValidator(_resolver)]


class Tls(Strict):
    """Where certificates come from (ACME, HTTP-01), and how a name is looked up before one is asked for."""

    directory: HttpUrl = Field(
        default="https://acme-v02.api.letsencrypt.org/directory", description="The ACME server's directory."
    )
    email: EmailStr | None = Field(default=None, description="Of the ACME account; left out: it has none.")
    ca_bundle: Certificates | None = Field(
        default=None, description="Certificates that an ACME server of one's own is trusted by; PEM."
    )
    resolvers: tuple[Resolver, ...] = Field(
        default=(), description="Asked whether a name leads to its node; left out: those of the control plane's host."
    )


class PreviewTls(Strict):
    """How the control plane proves the preview domain (DNS-01), for one certificate of all preview URLs."""

    challenge: Literal["dns-01"] = "dns-01"
    provider: Literal["rfc2136"] = "rfc2136"
    server: Resolver = Field(description="The primary name server, which takes signed updates.")
    zone: Hostname = Field(description="The zone that is updated: the preview domain, or one above it.")
    key_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,253}$")] = Field(
        description="Name of the TSIG key."
    )
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    secret: Slug = Field(default="preview-dns", description="Name of the secret with `key`, the TSIG key in base64.")
    propagation_s: int = Field(
        default=30, ge=0, le=900, description="Seconds that secondary name servers are given to learn of an update."
    )
