"""Who is sent reports, as the platform document declares it: each address by itself, under a name without secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.core.receivers import Reports, Smtp, WebhookTarget


@dataclass(frozen=True)
class Webhook:
    """A web server. ``id`` stays the same while its address does."""

    id: str
    name: str
    declared: WebhookTarget


@dataclass(frozen=True)
class Mailbox:
    """One person's address, and the server that takes mail for it."""

    id: str
    name: str
    address: str
    smtp: Smtp


Target = Webhook | Mailbox


def targets_of(reports: Reports) -> dict[str, Target]:
    """Every address once, by its id."""
    return {target.id: target for target in _targets(reports)}


def delivery_key(report_id: object, target_id: str) -> str:
    """The same for the same report and target, whoever makes it."""
    return hashlib.sha256(f"{report_id}\n{target_id}".encode()).hexdigest()


def _targets(reports: Reports) -> Iterator[Target]:
    for declared in reports.targets:
        if isinstance(declared, WebhookTarget):
            yield Webhook(_id("webhook", declared.url or f"secret {declared.secret}"), _name(declared), declared)
        elif reports.smtp:
            for address in declared.to:
                yield Mailbox(_id("email", address), f"email {address}", address, reports.smtp)


def _name(declared: WebhookTarget) -> str:
    """Without the path: chat services keep the password there."""
    if declared.url is None:
        return f"webhook of secret {declared.secret}"
    scheme, _, rest = declared.url.partition("://")
    return f"webhook {scheme}://{rest.partition('/')[0]}"


def _id(kind: str, address: str) -> str:
    return hashlib.sha256(f"{kind}\n{address}".encode()).hexdigest()
