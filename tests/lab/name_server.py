"""A real name server (BIND's named) with one zone, which takes updates signed with a TSIG key (RFC 2136)."""

import base64
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode

from tests.lab.ports import free_port

ZONE = "example.com"
PREVIEW = f"preview.{ZONE}"
CHALLENGE = f"_acme-challenge.{PREVIEW}"
KEY_NAME = "trueup"
PATIENCE_S = 120.0


@dataclass(frozen=True)
class NameServer:
    """``key``: what it takes updates of the challenge's TXT records by, and of nothing else."""

    address: str
    port: int
    key: str
    log_file: Path

    @property
    def server(self) -> str:
        return f"{self.address}:{self.port}"

    def texts(self, name: str = CHALLENGE) -> list[str]:
        """The TXT records that it shows."""
        answer = dns.query.tcp(dns.message.make_query(name, "TXT"), self.address, timeout=60, port=self.port)
        return [str(record) for records in answer.answer for record in records]

    def updates(self) -> int:
        """How many records were added by whoever had the key."""
        return self.log_file.read_text(errors="replace").count("adding an RR")

    def platform(self, indent: str = "  ") -> str:
        """The part of the platform document's spec that names it."""
        lines = [f"preview_domain: {PREVIEW}", "preview_tls:", f'  server: "{self.server}"', f"  zone: {ZONE}"]
        lines += [f"  key_name: {KEY_NAME}", "  secret: preview-dns", "  propagation_s: 0"]
        return "".join(f"{indent}{line}\n" for line in lines)


@contextmanager
def name_server(where: Path, address: str) -> Iterator[NameServer]:
    """Serve at ``address`` until the block ends."""
    program = shutil.which("named", path="/usr/sbin:/usr/bin")
    assert program, "named is not here: run `.ci/prepare test` as root."
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    server = NameServer(address, free_port(), key, where / "named.log")
    (where / "zone").write_text(
        f"$TTL 60\n@ IN SOA ns.{ZONE}. hostmaster.{ZONE}. 1 60 60 600 60\n@ IN NS ns.{ZONE}.\nns IN A {address}\n"
    )
    (where / "named.conf").write_text(_configuration(server, where))
    with server.log_file.open("wb") as log:
        argv = [program, "-g", "-n", "1", "-c", str(where / "named.conf")]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _configuration(server: NameServer, where: Path) -> str:
    return f"""
options {{
    directory "{where}";
    pid-file none;
    lock-file none;
    session-keyfile none;
    managed-keys-directory "{where}";
    listen-on port {server.port} {{ {server.address}; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    notify no;
}};
controls {{ }};
key "{KEY_NAME}" {{ algorithm hmac-sha256; secret "{server.key}"; }};
zone "{ZONE}" {{
    type primary;
    file "{where}/zone";
    update-policy {{ grant {KEY_NAME} name {CHALLENGE}. TXT; }};
}};
"""


def _wait(server: NameServer) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        query = dns.message.make_query(ZONE, "SOA")
        try:
            if dns.query.tcp(query, server.address, timeout=2, port=server.port).rcode() == dns.rcode.NOERROR:
                return
        except (OSError, dns.exception.DNSException):
            pass
        time.sleep(0.05)
    raise AssertionError(f"The name server did not start: {server.log_file.read_text(errors='replace')[-2000:]}")
