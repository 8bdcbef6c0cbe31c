"""A zone's TXT records by RFC 2136 updates, signed with TSIG: what nearly every name server takes."""

from __future__ import annotations

import binascii
import re

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update

from reconciler.certificates.errors import NotIssued
from reconciler.core.tls import PreviewTls

TIMEOUT_S = 10.0


class Zone:
    """The zone of these settings. ``key`` is the TSIG key in base64."""

    def __init__(self, settings: PreviewTls, key: str) -> None:
        self._zone = settings.zone
        self._address, self._port = _parted(settings.server)
        self._server = settings.server
        self._key_name = settings.key_name
        try:
            self._key = dns.tsig.Key(settings.key_name, key.strip(), f"{settings.algorithm}.")
        except (binascii.Error, ValueError) as error:
            raise NotIssued(
                f"Secret {settings.secret} has a `key` that is no base64. Set it anew: "
                f"`trueup secret set {settings.secret}`."
            ) from error

    def add(self, name: str, value: str) -> None:
        """Have a name show a text, beside what it shows already."""
        update = self._update()
        update.add(dns.name.from_text(name), 60, "TXT", f'"{value}"')
        self._send(update)

    def remove(self, name: str, value: str) -> None:
        update = self._update()
        update.delete(dns.name.from_text(name), "TXT", f'"{value}"')
        self._send(update)

    def _update(self) -> dns.update.UpdateMessage:
        update = dns.update.UpdateMessage(self._zone)
        update.use_tsig(self._key)
        return update

    def _send(self, update: dns.update.UpdateMessage) -> None:
        try:
            answer = dns.query.tcp(update, self._address, timeout=TIMEOUT_S, port=self._port)
        except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.message.UnknownTSIGKey) as error:
            raise NotIssued(
                f"Name server {self._server} refuses the TSIG key {self._key_name}: {error}. Compare key_name and "
                "algorithm in spec.preview_tls, and the secret, with the server's."
            ) from error
        except (dns.exception.DNSException, OSError) as error:
            raise NotIssued(
                f"Name server {self._server} does not answer an update of {self._zone}: {error or type(error).__name__}"
            ) from error
        if answer.rcode() != dns.rcode.NOERROR:
            raise NotIssued(
                f"Name server {self._server} refuses to update {self._zone}: {dns.rcode.to_text(answer.rcode())}. "
                f"Allow the key {self._key_name} to update TXT records there."
            )


def _parted(server: str) -> tuple[str, int]:
    """Address and port of ``192.0.2.53``, ``192.0.2.53:53``, ``[2001:db8::53]:53`` or ``2001:db8::53``."""
    found = re.fullmatch(r"(?:\[([0-9a-f:]+)\]|([0-9.]+)|([0-9a-f:]+))(?::(\d{1,5}))?", server)
    if found is None:
        raise NotIssued(f"{server} is no address of a name server.")
    return next(part for part in found.groups()[:3] if part), int(found.group(4) or 53)
