# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Certificates of an environment's own domains: asked for by certbot over HTTP-01, one lineage for each name.

Each name stands for itself. One that gets none leaves a note of why (whoever observes the node reads it), and all else
goes on. Renewing is the node's own timer's work, not this module's, unless that has left a certificate about to end.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import glob
import json
import os
import re
import shutil
import socket
import ssl
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import nginx
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates import domains
from ansible_collections.trueup.wordpress.plugins.module_utils.environment import place
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read, write_durably

TRUST = "/etc/trueup/acme/ca.pem"
SETTINGS = "/etc/trueup/acme/environment"
LOCK = "/run/trueup/locks/certbot"
LOGS = "/var/log/trueup-certbot"
SECONDS = 180
"""How long one name may take; certbot itself would wait for ever."""
TRIES = 3
"""How often certbot is run when the server refuses its nonces, which says nothing of the name (RFC 8555, 6.5).
Certbot itself repeats a request once."""
PATIENCE_SECONDS = 1
"""How long nginx may take to show what it has just been told to; its new workers start in the background."""
RELOAD_SECONDS = 5
FAILED = "CERTIFICATE_FAILED"


class Certificates:
    """``told``: the names that may be asked for now; None: every one that lacks a certificate."""

    def __init__(self, run, layout, variables, told):
        self.run = run
        self.path = layout.attempts
        self.server_block = layout.server_block
        self.names = domains.Names(variables)
        self.tls = variables.get("tls") or {}
        self.told = self.names.certified if told is None else told

    def lacking(self):
        """The names that have no certificate from where they are to come from, or one about to end."""
        return [name for name in self.names.certified if name in self.told and not self._is_well(name)]

    def _is_well(self, name):
        return self.names.has_certificate(name) and self._source(name) == self.tls["directory"] and not ends_soon(name)

    def _source(self, name):
        """The ACME server that a lineage came from."""
        text = (read(f"{domains.CERTIFICATES}/renewal/{name}.conf") or b"").decode("utf-8", "replace")
        found = re.search(r"^server = (\S+)$", text, re.MULTILINE)
        return found.group(1) if found else None

    # Asking

    def trust(self):
        """What certbot must know to trust an ACME server of one's own; also for the renewals. Paths of the files."""
        bundle = self.tls.get("ca_bundle")
        if not self.names.certified:
            return []
        if not bundle:
            place.absent(self.run, SETTINGS)
            place.absent(self.run, TRUST)
            return []
        place.directory(self.run, os.path.dirname(TRUST), 0o755)
        place.file(self.run, TRUST, bundle if bundle.endswith("\n") else f"{bundle}\n")
        place.file(self.run, SETTINGS, f"REQUESTS_CA_BUNDLE={TRUST}\n")
        return [TRUST, SETTINGS]

    def ask(self, refused):
        """Ask for what is lacking, but for what DNS ``refused``."""
        for name in self.lacking():
            if self.run.check_mode:
                self.run.change(f"certificate {name}", "", "asked for")
            elif name in refused:
                self._note(name, refused[name]["code"], refused[name]["message"])
            else:
                self._ask(name)

    def _ask(self, name):
        before = "present" if self.names.has_certificate(name) else ""
        said = self._certbot(name)
        if said is not None:
            self._note(name, FAILED, f"{name} got no certificate: {said}")
            return
        self.run.change(f"certificate {name}", before, "issued")
        self._note(name, None)

    def _certbot(self, name):
        """None when the certificate is there; else, in words for a person, why it is not."""
        argv = ["timeout", str(SECONDS), "certbot", "certonly", "--non-interactive", "--agree-tos", "--quiet"]
        argv += ["--config-dir", domains.CERTIFICATES, "--work-dir", f"{domains.CERTIFICATES}/work", "--logs-dir", LOGS]
        argv += ["--server", self.tls["directory"], "--webroot", "--webroot-path", domains.CHALLENGES]
        argv += ["--key-type", "ecdsa", "--cert-name", name, "--domain", name, "--force-renewal"]
        email = self.tls.get("email")
        argv += ["--email", email, "--no-eff-email"] if email else ["--register-unsafely-without-email"]
        trusted = {"REQUESTS_CA_BUNDLE": TRUST} if self.tls.get("ca_bundle") else {}
        os.makedirs(domains.CHALLENGES, mode=0o755, exist_ok=True)
        with locked():
            if not self.names.has_certificate(name):
                remove_lineage(name)  # what a killed attempt left would make certbot choose another name
            for tries_left in reversed(range(TRIES)):
                try:
                    self.run.command(argv, environment=trusted, hint="certbot failed")
                except Failure as error:
                    reason = _reason(str(error))
                    if tries_left and "badNonce" in reason:
                        continue
                    return reason
                break
        if not self.names.has_certificate(name):
            return "certbot ended well, but its files cannot be used."
        return None

    # Notes of what failed

    def _note(self, name, code, message=""):
        notes = _notes(self.path)
        former = notes.pop(name, None)
        if code:
            now = datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds")  # noqa: UP017
            count = former["count"] + 1 if former and former["code"] == code else 1
            notes[name] = {"code": code, "message": message, "at": now, "count": count}
        elif former is None:
            return
        self._write(notes)

    def _write(self, notes):
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        if notes:
            write_durably(self.path, json.dumps(notes, sort_keys=True).encode("utf-8"), 0o644)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    # Afterwards

    def served(self):
        """Have nginx show, for each name, the certificate that lies here; a Failure where it does not."""
        if self._are_shown(PATIENCE_SECONDS):
            return
        if self.run.change("certificates that nginx shows", "", "\n".join(self._outdated())):
            self.run.former_workers |= nginx.accepting()
            self.run.command(["systemctl", "reload-or-restart", "nginx.service"], hint="nginx did not reload")
        if not self._are_shown(RELOAD_SECONDS):
            raise Failure(
                f"nginx does not show the certificates of {', '.join(self._outdated())} that lie on this node."
            )

    def _are_shown(self, seconds):
        deadline = time.monotonic() + seconds
        while self._outdated():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _outdated(self):
        found = {name: domains.certificate_of(name) for name in self.names.certified}
        return [name for name, paths in found.items() if paths and shown(name) != der_of(paths[0])]

    def forget(self, former):
        """Remove what belongs to names that are this environment's no more."""
        gone = [name for name in former if name not in self.names.certified]
        for name in gone:
            is_left = has_lineage(name) and not _is_shown_elsewhere(name, self.server_block)
            if is_left and self.run.change(f"certificate {name}", "present", ""):
                with locked():
                    remove_lineage(name)
        notes = _notes(self.path)
        left = {name: note for name, note in notes.items() if name in self.names.certified}
        if left != notes and not self.run.check_mode:
            self._write(left)


def shown(name):
    """The certificate that nginx shows for a name, in DER; None where it shows none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        plain = socket.create_connection(("127.0.0.1", 443), timeout=5)
        with plain, context.wrap_socket(plain, server_hostname=name) as secure:
            return secure.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError):
        return None


def der_of(chain):
    """The first certificate of a file, in DER."""
    with open(chain, encoding="ascii") as file:
        text = file.read()
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(text[: text.index(end) + len(end)])


def ends_soon(name):
    """Whether less than two weeks are left, or less than a third of a short life."""
    found = ssl._ssl._test_decode_cert(domains.chain_of(name))
    start, end = (ssl.cert_time_to_seconds(found[key]) for key in ("notBefore", "notAfter"))
    return end - time.time() < min(14 * 86400, (end - start) / 3)


def has_lineage(name):
    return any(os.path.lexists(path) for path in _parts(name))


def remove_lineage(name):
    for path in _parts(name):
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _parts(name):
    top = domains.CERTIFICATES
    return [f"{top}/renewal/{name}.conf", f"{top}/live/{name}", f"{top}/archive/{name}"]


def _is_shown_elsewhere(name, own):
    """A name may have moved to another environment of this node before it was taken from this one."""
    for path in glob.glob("/etc/nginx/sites-enabled/*.conf"):
        if path != own and f"{domains.CERTIFICATES}/live/{name}/".encode() in (read(path) or b""):
            return True
    return False


@contextlib.contextmanager
def locked():
    """One certbot at a time on this node: it refuses to run beside itself."""
    os.makedirs(os.path.dirname(LOCK), mode=0o700, exist_ok=True)
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _notes(path):
    try:
        found = json.loads(read(path) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _reason(said):
    """What the ACME server said, without certbot's advice around it."""
    details = re.findall(r"^\s*(?:Type|Detail):\s*(.+?)\s*$", said, re.MULTILINE) or _logged()
    if details:
        return " ".join(dict.fromkeys(details))[:1000]
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("Ask for help")]
    return " ".join(lines)[-1000:]


def _logged():
    """The last problem that an ACME server told; certbot 2.1 stumbles over some of them and says nothing of it."""
    text = (read(f"{LOGS}/letsencrypt.log") or b"").decode("utf-8", "replace")
    found = re.findall(r'"type":\s*"urn:ietf:params:acme:error:(\w+)",\s*"detail":\s*"([^"]+)"', text)
    return [": ".join(found[-1])] if found else []
