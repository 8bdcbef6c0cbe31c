"""What the platform document may say of the certificate of preview URLs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reconciler.core.manifests import PlatformSpec

SETTINGS = {"server": "192.0.2.53", "zone": "example.com", "key_name": "trueup"}


@pytest.mark.parametrize("domain", ["example.com", "preview.example.com"])
def test_a_domain_in_the_zone_is_taken(domain: str) -> None:
    spec = PlatformSpec.model_validate({"preview_domain": domain, "preview_tls": SETTINGS})
    assert spec.preview_tls is not None
    assert (spec.preview_tls.challenge, spec.preview_tls.secret) == ("dns-01", "preview-dns")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"preview_tls": SETTINGS}, "preview_tls needs preview_domain"),
        ({"preview_domain": "badexample.com", "preview_tls": SETTINGS}, "badexample.com is not in preview_tls.zone"),
        ({"preview_domain": "example.com", "preview_tls": {**SETTINGS, "server": "ns.example.com"}}, "an address"),
        ({"preview_domain": "example.com", "preview_tls": {**SETTINGS, "algorithm": "hmac-md5"}}, "hmac-sha256"),
    ],
)
def test_what_cannot_work_is_refused(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        PlatformSpec.model_validate(spec)
