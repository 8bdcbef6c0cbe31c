"""What the platform document may say of reports, and whom that names."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reconciler.core.receivers import Reports
from reconciler.reports.targets import delivery_key, targets_of

SMTP = {"host": "mail.example.com", "sender": "trueup@example.com"}
CHAT = "https://hooks.example.com/services/T0/B0/s3cret"


def reports(**spec: Any) -> Reports:
    return Reports.model_validate(spec)


def test_every_morning_unless_it_says_otherwise() -> None:
    assert reports().schedule == "0 6 * * *"
    assert reports(schedule=None).schedule is None
    assert reports(smtp=SMTP).smtp is not None
    assert (reports(smtp=SMTP).smtp.port, reports(smtp=SMTP).smtp.security) == (587, "starttls")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"schedule": "61 * * * *"}, "schedule"),
        ({"targets": [{"type": "webhook"}]}, "a webhook needs a url, or a secret that holds one"),
        ({"targets": [{"type": "webhook", "url": "ftp://example.com"}]}, "must be an http or https address"),
        ({"targets": [{"type": "webhook", "url": "https://user:pass@example.com/"}]}, "without credentials"),
        ({"targets": [{"type": "email", "to": ["ops@example.com"]}]}, "a target of type email needs smtp"),
        ({"targets": [{"type": "email", "to": []}], "smtp": SMTP}, "at least 1 item"),
        ({"targets": [{"type": "email", "to": ["a@example.com\nBcc: b@example.com"]}], "smtp": SMTP}, "email"),
        ({"targets": [{"type": "pager"}]}, "does not match any of the expected tags"),
        ({"smtp": {**SMTP, "security": "none", "credentials": "mail"}}, "would be sent in the clear"),
        ({"smtp": {**SMTP, "host": "mail.example.com\r\nQUIT"}}, "host"),
    ],
)
def test_what_cannot_be_is_refused(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        reports(**spec)


def test_each_address_once_under_a_name_without_what_is_secret() -> None:
    webhook = {"type": "webhook", "url": CHAT}
    mail = {"type": "email", "to": ["ada@example.com", "bob@example.com"]}
    found = targets_of(
        reports(targets=[webhook, webhook, {"type": "webhook", "secret": "chat"}, mail, mail], smtp=SMTP)
    )
    assert [target.name for target in found.values()] == [
        "webhook https://hooks.example.com",
        "webhook of secret chat",
        "email ada@example.com",
        "email bob@example.com",
    ]
    assert not any("s3cret" in id_ or len(id_) != 64 for id_ in found)
    assert targets_of(Reports()) == {}


def test_a_key_is_of_one_report_and_one_target() -> None:
    keys = {delivery_key(report, target) for report in "ab" for target in "xy"}
    assert len(keys) == 4
    assert delivery_key("a", "x") == delivery_key("a", "x")
