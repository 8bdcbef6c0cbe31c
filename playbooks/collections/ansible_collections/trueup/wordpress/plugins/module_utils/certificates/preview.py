# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""The certificate of this node's preview URLs: in place as a whole or not at all, and never one that nginx refuses."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import time

from ansible_collections.trueup.wordpress.plugins.module_utils import nginx
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates import domains
from ansible_collections.trueup.wordpress.plugins.module_utils.certificates.certificates import der_of, shown
from ansible_collections.trueup.wordpress.plugins.module_utils.environment.run import Failure, read, write_durably

RELOAD_SECONDS = 10


class Preview:
    """``wanted``: C(domain), C(chain) and C(key), or none of them."""

    def __init__(self, wanted):
        self.domain = wanted.get("domain")
        self.chain, self.key = ((wanted.get(name) or "").encode() for name in ("chain", "key"))
        digest = hashlib.sha256(self.chain + self.key).hexdigest()[:16]
        self.top = f"{domains.PREVIEW}/{self.domain}"
        self.place = f"{self.top}/{digest}"

    @property
    def files(self):
        return f"{self.place}/fullchain.pem", f"{self.place}/privkey.pem"

    def differs(self):
        if not self.domain:
            return os.path.isdir(domains.PREVIEW)
        return self._told() != self._wanted() or [read(path) for path in self.files] != [self.chain, self.key]

    def apply(self):
        """Whether anything was changed. A Failure leaves what was shown before."""
        differs = self.differs()
        if differs and self.domain:
            self._put()
        if differs:
            self._swap()
        if self.domain and not self._is_shown():
            # Killed between the files and the reload, an earlier run left nginx with the former certificate.
            self._reload()
            differs = True
            if not self._is_shown():
                raise Failure(f"nginx does not show the certificate of *.{self.domain} for {', '.join(self.names())}.")
        self._clean()
        if self.domain:
            self._write_down()
        return differs

    def names(self):
        """The preview URLs that nginx answers for under the domain."""
        found, include = set(), domains.preview_include(f"*.{self.domain}")
        for path in glob.glob("/etc/nginx/sites-enabled/*.conf"):
            text = (read(path) or b"").decode("utf-8", "replace")
            for block in re.split(r"^server \{", text, flags=re.MULTILINE):
                if include in block:
                    found.update(re.findall(r"^\s*server_name (\S+);", block, re.MULTILINE))
        return sorted(name for name in found if self.domain and name.partition(".")[2] == self.domain)

    def _put(self):
        for path in (domains.PREVIEW, self.top, self.place):
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chmod(path, 0o700)
        for path, data in zip(self.files, (self.chain, self.key)):  # noqa: B905 (Python 3.9 has no `strict`)
            write_durably(path, data, 0o600)
        if not domains.is_usable(*self.files):
            shutil.rmtree(self.place)
            raise Failure(
                f"The certificate of *.{self.domain} and its key do not belong together; nothing was changed."
            )

    def _swap(self):
        """Tell nginx; what it refuses is taken back."""
        former, wanted = self._told(), self._wanted()
        self._tell(former, wanted)
        said = subprocess.run(
            ["/usr/sbin/nginx", "-t", "-q"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if said.returncode:
            self._tell(wanted, former)
            raise Failure(f"nginx refuses the certificate: {said.stderr.decode('utf-8', 'replace')[-1000:]}")
        self._reload()

    def _told(self):
        """What nginx is told now, by the file's path."""
        return {path: read(path) for path in glob.glob(domains.preview_rules_of("*"))}

    def _wanted(self):
        if not self.domain:
            return {}
        return {domains.preview_rules_of(self.domain): domains.preview_rules(*self.files).encode()}

    def _tell(self, former, wanted):
        for path in former.keys() - wanted.keys():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        for path, rules in wanted.items():
            write_durably(path, rules, 0o600)

    def _reload(self):
        former = nginx.accepting()
        argv = ["systemctl", "reload-or-restart", "nginx.service"]
        said = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if said.returncode:
            raise Failure(f"nginx did not reload: {said.stderr.decode('utf-8', 'replace')[-1000:]}")
        nginx.until_replaced(former)

    def _is_shown(self):
        wanted, deadline = der_of(self.files[0]), time.monotonic() + RELOAD_SECONDS
        while any(shown(name) != wanted for name in self.names()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _write_down(self):
        """For whoever observes the node: what lies here, and what it was when it was put here."""
        paths = (domains.preview_rules_of(self.domain), *self.files)
        digests = {path: hashlib.sha256(read(path)).hexdigest() for path in paths}
        fingerprint = hashlib.sha256(der_of(self.files[0])).hexdigest()
        text = json.dumps({"domain": self.domain, "fingerprint": fingerprint, "files": digests}, sort_keys=True)
        if read(domains.PREVIEW_MANIFEST) != text.encode():
            write_durably(domains.PREVIEW_MANIFEST, text.encode(), 0o600)

    def _clean(self):
        """Remove former certificates with their keys, of other domains too."""
        if not self.domain:
            shutil.rmtree(domains.PREVIEW, ignore_errors=True)
            return
        for path in (*glob.glob(f"{domains.PREVIEW}/*"), *glob.glob(f"{self.top}/*/")):
            if path.rstrip("/") not in (self.top, self.place, domains.PREVIEW_MANIFEST):
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
