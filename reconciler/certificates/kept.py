"""The control plane's own directory for the wildcard: certificate, keys, and what became of them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from reconciler.core.certificates import WAITS, WARNING


@dataclass(frozen=True)
class Wildcard:
    """A certificate with its key, and what it was asked for. ``chain`` and ``key`` are PEM."""

    domain: str
    directory: str
    chain: str
    key: str

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.chain.encode())[0]

    @property
    def fingerprint(self) -> str:
        return self.leaf.fingerprint(hashes.SHA256()).hex()

    @property
    def ends_at(self) -> datetime:
        return self.leaf.not_valid_after_utc

    def ends_soon(self, now: datetime) -> bool:
        """Whether a person is to be warned: it should have been renewed long ago."""
        leaf = self.leaf
        return self.ends_at - now < min(WARNING, (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / 3)

    def is_due(self, now: datetime) -> bool:
        """Whether less than a third of its life is left."""
        leaf = self.leaf
        return self.ends_at - now < (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / 3


@dataclass(frozen=True)
class Failure:
    """``asked``: what was tried, so that anything else is tried at once."""

    message: str
    at: datetime
    count: int
    asked: str

    def holds_back(self, asked: str, now: datetime) -> bool:
        """Whether it is too early to try the same again."""
        return self.asked == asked and now < self.at + WAITS[min(self.count, len(WAITS)) - 1]


@dataclass(frozen=True)
class Delivery:
    """What a node was given: it is given again after a day, or when another machine answers by its name."""

    fingerprint: str
    host_key: str
    at: datetime

    def holds(self, fingerprint: str, host_key: str, now: datetime) -> bool:
        same = (self.fingerprint, self.host_key) == (fingerprint, host_key)
        return same and now < self.at + timedelta(days=1)


@dataclass(frozen=True)
class Notes:
    """``failure``: of asking for the certificate. ``delivered`` and ``refused``: by the node's id."""

    failure: Failure | None = None
    delivered: dict[str, Delivery] = field(default_factory=dict)
    refused: dict[str, Failure] = field(default_factory=dict)

    @property
    def failures(self) -> int:
        """How many things are wrong now: the asking, and each node that did not take what it was given."""
        return len(self.refused) + (self.failure is not None)

    @property
    def holders(self) -> frozenset[str]:
        """Ids of nodes that have it, or may: what a node refused may have come half-way."""
        return frozenset(self.delivered) | frozenset(self.refused)

    def failed(self, message: str, asked: str, now: datetime) -> Notes:
        return replace(self, failure=_counted(self.failure, message, asked, now))

    def given(self, node: str, delivery: Delivery) -> Notes:
        refused = {key: value for key, value in self.refused.items() if key != node}
        return replace(self, delivered={**self.delivered, node: delivery}, refused=refused)

    def not_given(self, node: str, message: str, asked: str, now: datetime) -> Notes:
        failure = _counted(self.refused.get(node), message, asked, now)
        return replace(self, refused={**self.refused, node: failure})

    def without(self, node: str) -> Notes:
        left = {key: value for key, value in self.delivered.items() if key != node}
        return replace(self, delivered=left, refused={key: one for key, one in self.refused.items() if key != node})


def _counted(former: Failure | None, message: str, asked: str, now: datetime) -> Failure:
    return Failure(message, now, former.count + 1 if former and former.asked == asked else 1, asked)


class Kept:
    """The files of ``directory``, each replaced as a whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def account_key(self) -> Path:
        return self._directory / "account.pem"

    def wildcard(self) -> Wildcard | None:
        """None where there is none, or none that can be read: then another one is asked for."""
        found = self._read("certificate.json")
        try:
            wildcard = Wildcard(**found)
            wildcard.leaf  # noqa: B018 (raises where it is no certificate)
        except (TypeError, ValueError, IndexError):
            return None
        return wildcard

    def keep(self, wildcard: Wildcard) -> None:
        self._write("certificate.json", asdict(wildcard))

    def notes(self) -> Notes:
        found = self._read("notes.json")
        try:
            return self._noted(found) if found else Notes()
        except (KeyError, TypeError, ValueError, AttributeError):
            return Notes()

    @staticmethod
    def _noted(found: dict[str, Any]) -> Notes:
        return Notes(
            failure=_failure(found["failure"]) if found["failure"] else None,
            delivered={
                node: Delivery(one["fingerprint"], one["host_key"], datetime.fromisoformat(one["at"]))
                for node, one in found["delivered"].items()
            },
            refused={node: _failure(one) for node, one in found["refused"].items()},
        )

    def note(self, notes: Notes) -> None:
        self._write("notes.json", asdict(notes))

    def forget(self) -> None:
        """All but the account: no certificate is wanted any more."""
        for name in ("certificate.json", "notes.json"):
            (self._directory / name).unlink(missing_ok=True)

    def write(self, path: Path, text: str) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        self.write(self._directory / name, json.dumps(value, default=datetime.isoformat))

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self._directory / name).read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _failure(found: dict[str, Any]) -> Failure:
    return Failure(found["message"], datetime.fromisoformat(found["at"]), found["count"], found["asked"])
