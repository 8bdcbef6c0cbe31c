"""Asks an ACME server for the wildcard of a domain, which it proves by a TXT record (DNS-01)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import josepy.errors
import requests
import structlog
from acme import challenges, client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwa import ES256
from josepy.jwk import JWKEC
from josepy.util import ComparableECKey

from reconciler.certificates.errors import NotIssued
from reconciler.certificates.kept import Kept, Wildcard
from reconciler.certificates.zone import Zone
from reconciler.core.tls import Tls

log = structlog.get_logger()

PATIENCE = timedelta(seconds=180)
TRIES = 6
"""How often a request is sent that the server refuses for its nonce alone (RFC 8555, 6.5)."""


class Network(client.ClientNetwork):
    """The library's own sends such a request twice, and each of an order's requests can meet it."""

    def post(self, *words: Any, **named: Any) -> requests.Response:
        for _ in range(TRIES // 2 - 1):
            try:
                return super().post(*words, **named)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*words, **named)


def obtain(domain: str, tls: Tls, zone: Zone, wait: Callable[[], None], kept: Kept) -> Wildcard:
    """A certificate for ``*.domain``, made now. ``wait`` returns once all name servers know what the zone was told.

    Raises:
        NotIssued: the name server or the ACME server refused.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        with tempfile.TemporaryDirectory() as directory:
            server = _client(tls, _account_key(kept), Path(directory))
            order = server.new_order(_request(domain, key))
            return Wildcard(domain, tls.directory, _proven(server, order, zone, wait), _pem(key))
    except errors.ValidationError as error:
        raise NotIssued(f"*.{domain} got no certificate: {_told(error)}") from error
    except (errors.Error, requests.RequestException, josepy.errors.Error) as error:
        raise NotIssued(
            f"*.{domain} got no certificate from {tls.directory}: {str(error) or type(error).__name__}"
        ) from error


def _proven(server: client.ClientV2, order: messages.OrderResource, zone: Zone, wait: Callable[[], None]) -> str:
    """The chain, in PEM, after every name of the order has been proven."""
    shown: list[tuple[str, str]] = []
    try:
        for authorization in order.authorizations:
            if authorization.body.status == messages.STATUS_VALID:
                continue
            challenge = _dns_challenge(authorization)
            response, value = challenge.response_and_validation(server.net.key)
            name = challenge.chall.validation_domain_name(authorization.body.identifier.value)
            zone.add(name, value)
            shown.append((name, value))
            wait()
            server.answer_challenge(challenge, response)
        # The library compares with a naive clock.
        done = server.poll_and_finalize(order, datetime.now() + PATIENCE)  # noqa: DTZ005
        return str(done.fullchain_pem)
    finally:
        for name, value in shown:
            try:
                zone.remove(name, value)
            except NotIssued as error:  # a record that is left proves nothing to anybody; the certificate is there
                log.warning("TXT record not removed", name=name, error=str(error))


def _dns_challenge(authorization: messages.AuthorizationResource) -> messages.ChallengeBody:
    for body in authorization.body.challenges:
        if isinstance(body.chall, challenges.DNS01):
            return body
    raise NotIssued(f"The ACME server offers no DNS-01 for {authorization.body.identifier.value}.")


def _client(tls: Tls, key: ec.EllipticCurvePrivateKey, directory: Path) -> client.ClientV2:
    net = Network(JWKEC(key=ComparableECKey(key)), alg=ES256, user_agent="trueup")
    if tls.ca_bundle:
        bundle = directory / "ca.pem"
        bundle.write_text(tls.ca_bundle)
        net.verify_ssl = str(bundle)  # type: ignore[assignment]  # handed to requests, which takes a path too
    found = client.ClientV2(client.ClientV2.get_directory(tls.directory, net), net)
    account = messages.NewRegistration.from_data(email=tls.email, terms_of_service_agreed=True)
    try:
        found.new_account(account)
    except errors.ConflictError as error:
        net.account = messages.RegistrationResource(uri=error.location, body=messages.Registration())
    return found


def _account_key(kept: Kept) -> ec.EllipticCurvePrivateKey:
    if not kept.account_key.exists():
        kept.write(kept.account_key, _pem(ec.generate_private_key(ec.SECP256R1())))
    key = serialization.load_pem_private_key(kept.account_key.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NotIssued(f"{kept.account_key} is no key of an ACME account. Remove it; another one is made.")
    return key


def _request(domain: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName(f"*.{domain}")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, shape = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, shape, serialization.NoEncryption()).decode()


def _told(error: errors.ValidationError) -> str:
    """What the ACME server said of each challenge that failed."""
    found = [body.error for one in error.failed_authzrs for body in one.body.challenges if body.error is not None]
    return " ".join(str(one) for one in found) or str(error)
