"""What lies outside of a hacked site and must neither get into it nor change: root's files, neighbours, the store."""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.churn import options
from tests.isolation.hacked import Hacked
from tests.lab import Node
from tests.lab.s3 import BUCKET, S3
from tests.place import Place

LOOK = Path(__file__).with_name("on_node") / "look.py"
ROOTS = ["/opt/trueup", "/etc", "/root", "/usr/local", "/var/spool/cron", "/var/lib/trueup"]
CHANGING = [
    r"^/etc/(?:passwd|group|shadow|gshadow|subuid|subgid)-?$",
    r"^/etc/(?:hosts|\.pwd\.lock|\.updated)$",
    r"^/etc/letsencrypt/renewal-hooks(?:/(?:deploy|post|pre))?$",
    r"^/etc/trueup/(?:environments|jobs|fences?)$",
    r"^/etc/(?:systemd/system|nginx/sites-enabled|trueup|trueup/php)$",
    r"^/etc/systemd/system/(?:[a-z.-]+\.wants|trueup-[^/]*)$",
    r"^/etc/trueup/environments/[^/]*\.(?:lock|fence|pending)$",
    r"^/etc/trueup/(?:node\.json|certificates|php)$",
    r"^/root/(?:\.ansible|\.cache)",
    r"^/var/lib/trueup/(?:undo|code|seeds?|letsencrypt|acme|spares)",
    r"/(?:logs|tmp)(?:/|$)|/shared/uploads(?:/\d.*)?$",
    r"/__pycache__(?:/|$)|^/root/tupwned",
]
"""What ordinary operations write: lists of all environments, locks, caches; what is in them is looked at elsewhere.

Certbot makes its empty directories for hooks when its timer goes for the first time, which may be at any time.
"""
ROWS = r"""
set -e
for short in SHORTS; do
  mariadb-dump --single-transaction --hex-blob --skip-dump-date --order-by-primary --ignore-table=wp_$short.wp_options \
    wp_$short | sha256sum
  mariadb -N wp_$short -e "OPTIONS" | sha256sum
done
mariadb -N -e "SELECT User, Host, MD5(Priv) FROM mysql.global_priv WHERE User NOT REGEXP 'HIDDEN' ORDER BY 1, 2"
mariadb -N wp_NEAR -e "SELECT slug, secret FROM wp_canary WHERE slug LIKE 'by %'"
mariadb -N -e "SELECT @@GLOBAL.general_log, @@GLOBAL.event_scheduler, @@GLOBAL.max_connections"
""".replace("OPTIONS", options("option_name, MD5(option_value)"))


@dataclass(frozen=True)
class Sight:
    """All that is outside of a site, at one moment."""

    files: dict[str, list[Any]]
    rows: tuple[str, ...]
    keys: tuple[str, ...]
    home: str


@dataclass
class Canaries:
    """The canaries on a node: one for each plant and place, so that what got out names the plant that let it out."""

    place: Place
    node: Node
    neighbours: tuple[Hacked, ...]
    slugs: tuple[str, ...]
    words: dict[str, str] = field(default_factory=dict)
    """Secrets that have no canary's name, to what they are."""

    def put(self) -> None:
        """A directory with a secret for each slug, below /root, /etc and among the first neighbour's uploads; anew,
        where something has reached one.
        """
        near = self.neighbours[0]
        script = f"""
import os, pwd, sys
entry = pwd.getpwnam({near.user!r})
uploads = {near.site + "/shared/uploads"!r}
for top, uid, mode in (("/root", 0, 0o600), ("/etc", 0, 0o644), (uploads, entry.pw_uid, 0o600)):
    for slug in sys.argv[1:]:
        path = f"{{top}}/canaries/{{slug}}"
        os.makedirs(path, exist_ok=True)
        for name in ("secret.php", "secret.txt"):
            with open(f"{{path}}/{{name}}", "w") as file:
                os.fchmod(file.fileno(), mode)
                os.fchown(file.fileno(), uid, uid)
                file.write("<?php // TUCANARY-" + slug + "\\n")
        os.chown(path, uid, uid)
"""
        self.node.ssh(["python3", "-I", "-S", "-", *self.slugs], input=script)
        # What earlier trials did to what all sites share.
        mend = "chown -R root:root /opt/trueup/wordpress; rm -f /var/spool/cron/crontabs/wp-*"
        self.node.ssh(mend, check=False)
        near.node.ssh(["mariadb", near.database], input=ROWS_OF_CANARIES + _rows(self.slugs))
        for one in self.neighbours:
            one.eval_in_wordpress("wp_cache_set('canary', 'TUCANARY-redis-key', 'canary');")
            self.words[one.php(f"{one.connect} echo $p[1];")] = f"the database password of {one.slug}"

    def look(self, hacked: Hacked) -> tuple[Sight, list[tuple[str, str]], list[str]]:
        """Now: what is outside of ``hacked``; each canary in it with where it lies; marks of commands that ran."""
        ids = [one["id"] for one in hacked.everything()]
        left_out = [*CHANGING, *ids, *(id_.replace("-", "")[:12] for id_ in ids)]
        known = {one.id for one in self.neighbours}
        # Environments that came later are nobody's canary.
        left_out.append(rf"(?<![0-9a-f])(?!{'|'.join(known)})[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}")
        left_out.append(rf"[@_-](?!{'|'.join(one.short for one in self.neighbours)})[0-9a-f]{{12}}(?![0-9a-f-])")
        roots = [*ROOTS, *(one.site for one in self.neighbours)]
        asked = {"roots": roots, "left_out": left_out, "environments": ids, "words": list(self.words)}
        found: list[tuple[str, str]] = []
        for node in self.place.nodes.values():
            if node is not self.node and not hacked.derived:
                continue
            mine = {**asked, "roots": roots if node is self.node else []}
            said = node.ssh(["python3", "-I", "-S", "-", json.dumps(mine)], input=LOOK.read_text(), timeout=120).stdout
            answer = json.loads(said)
            found += [(self.words.get(word, word.removeprefix("TUCANARY-")), where) for word, where in answer["found"]]
            if node is self.node:
                files, marks = answer["files"], answer["marks"]
        return Sight(files, self._rows(ids), self._keys(), self._home()), found, marks

    def _rows(self, ids: list[str]) -> tuple[str, ...]:
        shorts = " ".join(one.short for one in self.neighbours)
        later = "^(wp|trueup)_(?!" + "|".join(one.short for one in self.neighbours) + ")"
        script = ROWS.replace("SHORTS", shorts).replace("HIDDEN", later).replace("NEAR", self.neighbours[0].short)
        return tuple(self.node.ssh(script).stdout.splitlines())

    def _keys(self) -> tuple[str, ...]:
        read = "echo json_encode(wp_cache_get('canary', 'canary'));"
        return tuple(one.eval_in_wordpress(read) for one in self.neighbours)

    def _home(self) -> str:
        """Of what makes the control plane this one: its keys and secrets."""
        found = hashlib.sha256()
        for path in sorted(self.place.plane.home.rglob("*")):
            if path.is_file() and path.parent.name in {"ssh", "secrets"}:
                found.update(f"{path} {path.stat().st_mode:o}".encode() + path.read_bytes())
        return found.hexdigest()


ROWS_OF_CANARIES = """
CREATE TABLE IF NOT EXISTS wp_canary (slug VARCHAR(64) PRIMARY KEY, secret VARCHAR(200));
DELETE FROM wp_canary;
"""


def _rows(slugs: Iterable[str]) -> str:
    return "".join(f"REPLACE INTO wp_canary VALUES ('{slug}', 'TUCANARY-{slug}');\n" for slug in slugs)


def differences(before: Sight, after: Sight) -> list[str]:
    """What changed outside of the site, in words."""
    told = []
    for path in sorted(before.files.keys() | after.files.keys()):
        one, other = before.files.get(path), after.files.get(path)
        if one != other:
            told.append(f"{path} was {one}, and is {other}")
    for name in ("rows", "keys"):
        one, other = getattr(before, name), getattr(after, name)
        told += [f"{name}: {line}" for line in sorted(set(one) ^ set(other))]
    if before.home != after.home:
        told.append("the control plane's keys and secrets are others")
    return told


def in_backups(storage: S3, hacked: Hacked) -> list[tuple[str, str]]:
    """Each canary in the backups of the environment, with the object's name."""
    found = []
    for id_ in (one["id"] for one in hacked.everything()):
        listed = storage.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{id_}/").get("Contents", [])
        for key in (one["Key"] for one in listed if not one["Key"].endswith(".json")):
            packed = storage.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            plain = subprocess.run(["zstd", "-dcq"], input=packed, capture_output=True, check=False).stdout or packed
            found += [(word.decode(), key) for word in set(re.findall(rb"TUCANARY-([a-z0-9-]+)", plain))]
    return found
