"""What fields of documents may hold, each type with the form that it is held to."""

from __future__ import annotations

import re
import unicodedata
from ipaddress import ip_address
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from reconciler.core.cron import checked

SLUG_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
HOSTNAME_PATTERN = r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])$"
VERSION_PATTERN = r"^[0-9]+\.[0-9]+(?:\.[0-9]+)?$"


def _printable(text: str) -> str:
    # What Python calls printable has none of them; the other way round that is not so.
    if not text.isprintable() and any(
        unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in text
    ):
        raise ValueError("must not contain control or invisible formatting characters")
    if text != text.strip():
        raise ValueError("must not begin or end with white space")
    return text


def _address(text: str) -> str:
    return str(ip_address(text))


def is_address(text: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _host_key(text: str) -> str:
    if not re.fullmatch(r"(ssh-ed25519|ecdsa-sha2-nistp\d+|ssh-rsa) [A-Za-z0-9+/]+=*", text):
        raise ValueError("must be a public host key: type and base64, as `ssh-keyscan` prints after the address")
    return text


def _timezone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a time zone's name, as Europe/Berlin") from error


def _http_url(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+(?:/[!-~]*)?", text) or "@" in text:
        raise ValueError("must be an http or https address without credentials")
    return text.rstrip("/")


def _pem(text: str) -> str:
    if not re.fullmatch(r"(?:-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n*)+", text):
        raise ValueError("must be certificates in PEM, and nothing else")
    return text


Cron = Annotated[str, AfterValidator(checked)]
Certificates = Annotated[str, StringConstraints(max_length=65536), AfterValidator(_pem)]
Timezone = Annotated[str, AfterValidator(_timezone)]
HttpUrl = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_http_url)]
Slug = Annotated[str, StringConstraints(pattern=SLUG_PATTERN, max_length=63)]
Hostname = Annotated[str, StringConstraints(pattern=HOSTNAME_PATTERN, min_length=4, max_length=253)]
DisplayName = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_printable)]
Version = Annotated[str, StringConstraints(pattern=VERSION_PATTERN)]
Address = Annotated[str, AfterValidator(_address)]
HostKey = Annotated[str, AfterValidator(_host_key)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)
