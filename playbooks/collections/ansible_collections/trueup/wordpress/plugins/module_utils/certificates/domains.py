# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""An environment's names: which of them are ready, which is its address, and what nginx does with the others.

A domain is ready once its certificate is on this node, or when it is to have none. The address is the first ready one,
in the document's order, else the preview URL: so a name that gets no certificate harms nobody, and nginx never reads of
a certificate that is not there.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess

CERTIFICATES = "/var/lib/trueup/letsencrypt"
"""certbot's directory for Trueup alone: the operator's own /etc/letsencrypt stays his."""
CHALLENGES = "/var/lib/trueup/acme"
PREVIEW = "/var/lib/trueup/preview"
"""The wildcard of preview URLs, and what nginx is told of it, by domain; the control plane brings it."""
PREVIEW_MANIFEST = f"{PREVIEW}/manifest.json"
IPV6 = "/proc/net/if_inet6"
PERMANENT, TEMPORARY = "301", "302"


def chain_of(hostname):
    return f"{CERTIFICATES}/live/{hostname}/fullchain.pem"


def key_of(hostname):
    return f"{CERTIFICATES}/live/{hostname}/privkey.pem"


def is_usable(chain, key):
    """Whether certificate and key are there and belong together, so that nginx takes them."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
    except (OSError, ssl.SSLError):
        return False
    return True


class Names:
    """What the variables say of names, and what of it is ready on this node."""

    def __init__(self, variables):
        self.preview_url = variables["url"]
        self.preview = host_of(self.preview_url)
        self.domains = {domain["hostname"]: domain.get("tls", True) for domain in variables.get("domains") or ()}

    @property
    def certified(self):
        """Domains that are to have a certificate."""
        return [name for name, tls in self.domains.items() if tls]

    def has_certificate(self, name):
        return name in self.certified and is_usable(chain_of(name), key_of(name))

    def is_ready(self, name):
        return not self.domains[name] or self.has_certificate(name)

    @property
    def address(self):
        """Scheme and host of WordPress's address."""
        ready = next((name for name in self.domains if self.is_ready(name)), None)
        if ready is None:
            return self.preview_url
        return f"{'https' if self.domains[ready] else 'http'}://{ready}"

    def servers(self, template, url, own=None):
        """Text of the server blocks that make ``url`` the address, one for each way in which names are treated.

        ``own``: an address of the loopback at which nginx has these blocks and no others, whatever name is asked for.
        """
        host = host_of(url)
        # A former address that is declared no more keeps its certificate until nobody is sent there.
        certificate = certificate_of(host) if url.startswith("https:") else None
        secure = certificate is not None
        fronted = url.startswith("https:")
        preview = host if fronted and host == self.preview else None
        blocks = [
            _block(
                template, [host], plain=not secure, certificate=certificate, fronted=fronted, preview=preview, own=own
            )
        ]
        if secure:
            blocks.append(_block(template, [host], plain=True, moves=(PERMANENT, url), every=True, own=own))
        groups = {}
        for name in (self.preview, *self.domains):
            if name != host:
                is_own = name in self.domains
                found = certificate_of(name) if is_own and self.domains[name] else None
                status = PERMANENT if is_own and self.is_ready(name) else TEMPORARY
                fronted = not is_own and self.preview_url.startswith("https:")
                groups.setdefault((found, status, fronted), []).append(name)
        blocks += [
            _block(
                template,
                group,
                plain=True,
                certificate=found,
                moves=(status, url),
                fronted=fronted,
                preview=self.preview if fronted else None,
                own=own,
            )
            for (found, status, fronted), group in groups.items()
        ]
        if own and not secure and not any(found for found, _, _ in groups):
            # Else what is asked for there would be answered by whoever has the name.
            blocks.append(f"server {{\n    listen {own}:443 ssl;\n    ssl_reject_handshake on;\n}}\n")
        return "\n".join(blocks)


def address_of(variables):
    """WordPress's address on this node: the first ready domain's, else the preview URL."""
    return Names(variables).address


def certificate_of(name):
    """Paths of the chain and the key that nginx shows for a name; None where there is none."""
    return (chain_of(name), key_of(name)) if is_usable(chain_of(name), key_of(name)) else None


def is_secure(url):
    """Whether this node's nginx speaks TLS at an address. Of https in front of it, it knows nothing."""
    host = host_of(url)
    return url.startswith("https:") and (certificate_of(host) is not None or has_wildcard(host))


def has_wildcard(preview):
    """Whether the wildcard of a preview URL's domain is shown for it."""
    return os.path.exists(preview_rules_of(preview.partition(".")[2]))


def preview_rules_of(domain):
    """What nginx is told of a preview domain's wildcard: there while it is shown."""
    return f"{PREVIEW}/{domain}/nginx.conf"


def preview_include(preview):
    """The same as nginx is told to read it, which takes it well only of a pattern that there is no such file."""
    return f"include {PREVIEW}/{preview.partition('.')[2]}/nginx.con[f];"


def host_of(url):
    return url.partition("://")[2]


def _block(template, group, *, plain, certificate=None, moves=None, every=False, fronted=False, preview=None, own=None):
    """One server block. ``every``: requests that change something are sent on too, and keep their body.

    ``preview``: the preview URL's host, if the block is for that and it is https.
    """
    listen = ["listen 80;", *(["listen [::]:80;"] if _ipv6() else [])] if plain else []
    listen += [f"listen {own}:80;"] if plain and own else []
    if certificate:
        listen += _secure_listen(own)
        listen += [f"ssl_certificate {certificate[0]};", f"ssl_certificate_key {certificate[1]};"]
    rules = []
    if moves:
        status, url = moves
        rules = [f"if ($trueup_move = read) {{ return {status} {url}$request_uri; }}"]
        rules += [f"if ($trueup_move = write) {{ return 308 {url}$request_uri; }}"] if every else []
    filled = {
        "@LISTEN@": listen,
        "@PREVIEW@": [preview_include(preview)] if preview else [],
        "@NAMES@": [" ".join(group)],
        "@MOVES@": rules,
        "@FRONTED@": ["fastcgi_param HTTPS on;"] if fronted and not certificate else [],
    }
    return _filled(template, filled)


def _filled(template, values):
    """Each mark replaced by its lines, indented as it was; a line that has nothing to say goes."""
    lines = []
    for line in template.splitlines():
        mark = next((mark for mark in values if mark in line), None)
        if mark is None:
            lines.append(line)
        elif line.strip() == mark:
            lines += [line.replace(mark, value) for value in values[mark]]
        else:
            lines.append(line.replace(mark, " ".join(values[mark])))
    return "\n".join(lines) + "\n"


def preview_rules(chain, key):
    """What makes a preview URL's server block speak TLS, too, and sends on what reads over http.

    What TLS in front of the node has taken is not sent on, for it would come back. Nobody's browser is told to keep to
    https: the wildcard may be taken away again.
    """
    lines = [*_secure_listen(), f"ssl_certificate {chain};", f"ssl_certificate_key {key};"]
    lines += ['set $trueup_preview "$scheme $trueup_move $http_x_forwarded_proto";']
    lines += ['if ($trueup_preview ~ "^http read (?!https$)") { return 301 https://$host$request_uri; }']
    lines += ['set $trueup_hsts "";']
    return "\n".join(lines) + "\n"


def _secure_listen(own=None):
    addresses = ["443", *(["[::]:443"] if _ipv6() else []), *([f"{own}:443"] if own else [])]
    # Since 1.25.1 HTTP/2 is a directive of its own.
    if _nginx_version() >= (1, 25, 1):
        return [*(f"listen {address} ssl;" for address in addresses), "http2 on;"]
    return [f"listen {address} ssl http2;" for address in addresses]


def _nginx_version():
    said = subprocess.run(["/usr/sbin/nginx", "-v"], stdin=subprocess.DEVNULL, capture_output=True, check=False).stderr
    found = re.search(rb"nginx/(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in found.groups()) if found else (0, 0, 0)


def _ipv6():
    return os.path.exists(IPV6)
