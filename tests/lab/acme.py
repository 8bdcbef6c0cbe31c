"""A real ACME server (Pebble) with a DNS of its own, at an address that nodes reach: it proves names over HTTP-01."""

import datetime
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.lab.ports import free_port

EMAIL = "certificates@example.com"
PATIENCE_S = 120.0
BLOCKED = "blocked.example.com"
"""A name that the server gives no certificate for, wherever it leads."""


@dataclass(frozen=True)
class Acme:
    """``ports``: of the directory, Pebble's management, DNS, and its management."""

    address: str
    ports: tuple[int, int, int, int]
    ca_bundle: str
    log_file: Path

    @property
    def directory(self) -> str:
        return f"https://{self.address}:{self.ports[0]}/dir"

    @property
    def resolver(self) -> str:
        return f"{self.address}:{self.ports[2]}"

    def point(self, name: str, *addresses: str) -> None:
        """Have a name lead to these addresses; to none: it has none."""
        for kind, version in (("a", 4), ("aaaa", 6)):
            self._say(f"clear-{kind}", {"host": f"{name}."})
            found = [one for one in addresses if ip_address(one).version == version]
            if found:
                self._say(f"add-{kind}", {"host": f"{name}.", "addresses": found})

    def _say(self, what: str, body: dict[str, Any]) -> None:
        url = f"http://{self.address}:{self.ports[3]}/{what}"
        httpx.post(url, json=body, trust_env=False, timeout=60).raise_for_status()

    def roots(self, where: Path) -> Path:
        """A file with what the certificates of now are trusted by."""
        answer = httpx.get(
            f"https://{self.address}:{self.ports[1]}/roots/0", verify=self._trust(), trust_env=False, timeout=60
        )
        where.write_text(answer.text)
        return where

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.ca_bundle)

    def orders(self) -> int:
        """How often anybody has asked for a certificate."""
        return self.log_file.read_text(errors="replace").count("POST /order-plz")

    def platform(self, indent: str = "  ") -> str:
        """The part of the platform document's spec that names it."""
        lines = ["tls:", f"  directory: {self.directory}", f"  email: {EMAIL}", f'  resolvers: ["{self.resolver}"]']
        lines += ["  ca_bundle: |", *(f"    {line}" for line in self.ca_bundle.splitlines())]
        return "".join(f"{indent}{line}\n" for line in lines)


@contextmanager
def acme_server(where: Path, address: str, *, days: int = 90, dns: str | None = None) -> Iterator[Acme]:
    """Serve at ``address`` until the block ends. Its certificates live for so many days.

    ``dns``: a server that is asked in place of its own.
    """
    for program in ("pebble", "pebble-challtestsrv"):
        assert shutil.which(program), f"{program} is not here: run `.ci/prepare test` as root."
    ports = free_port(), free_port(), free_port(), free_port()
    server = Acme(address, ports, _own_certificate(where, address), where / "pebble.log")
    config = {
        "listenAddress": f"{address}:{ports[0]}",
        "managementListenAddress": f"{address}:{ports[1]}",
        "certificate": str(where / "server.pem"),
        "privateKey": str(where / "server.key"),
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "domainBlocklist": [BLOCKED],
        "certificateValidityPeriod": days * 86400,
    }
    (where / "pebble.json").write_text(json.dumps({"pebble": config}))
    names = ["pebble-challtestsrv", "-defaultIPv4", "", "-defaultIPv6", "", "-dns01", f"{address}:{ports[2]}"]
    names += ["-management", f"{address}:{ports[3]}", "-http01", "", "-https01", "", "-tlsalpn01", ""]
    issuer = ["pebble", "-config", str(where / "pebble.json"), "-dnsserver", dns or server.resolver, "-strict"]
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0", "PEBBLE_WFE_NONCEREJECT": "5"}
    with server.log_file.open("wb") as log, (where / "names.log").open("wb") as other:
        processes = [
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)
            for argv, file in ((names, other), (issuer, log))
        ]
    try:
        _wait(server)
        yield server
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait(server: Acme) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            httpx.get(server.directory, verify=server._trust(), trust_env=False, timeout=2).raise_for_status()
            server.point("nobody.example.com")
            return
        time.sleep(0.05)
    raise AssertionError(f"The ACME server did not start: {server.log_file.read_text(errors='replace')[-2000:]}")


def _own_certificate(where: Path, address: str) -> str:
    """What the ACME server shows for itself, in files; and what it is trusted by, in PEM."""
    authority_key, authority = certificate("Lab authority", days=30, authority=True)
    key, own = certificate(address, days=30, issuer=(authority_key, authority), addresses=(address,))
    (where / "server.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    (where / "server.key").write_bytes(key_pem(key))
    return authority.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, shape = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(encoding, shape, serialization.NoEncryption())


def certificate(
    name: str,
    *,
    days: float,
    age_days: float = 1,
    authority: bool = False,
    issuer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None = None,
    addresses: tuple[str, ...] = (),
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A certificate for `name` that is `age_days` old and ends in `days`; its own issuer unless one is given."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = [x509.IPAddress(ip_address(one)) for one in addresses] or [x509.DNSName(name.replace(" ", "-").lower())]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=age_days))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    return key, builder.sign(issuer[0] if issuer else key, hashes.SHA256())
