"""What an upgrade must leave as it is, seen from outside: on the node, in the database, through the API."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.controlplane import ControlPlane
from tests.lab import Node

Rows = dict[str, dict[str, Any]]

UNITS = """
systemctl show '*.service' '*.timer' '*.socket' -p Id,Type,ActiveState,MainPID,NRestarts,InvocationID \
-p ActiveEnterTimestampMonotonic,StateChangeTimestampMonotonic
"""
RELOADS = "journalctl --quiet --unit=nginx.service --output=cat | grep --count '^Reloaded ' || true"
FILES = r"""
find /etc /usr/local /opt /var/www/sites /var/spool/cron /var/lib/trueup -xdev -path /var/lib/trueup/fences -prune -o \
! -path /etc/trueup ! -path /etc/trueup/environments ! -path '/etc/trueup/*.json' ! -path '/etc/letsencrypt*' \
! \( -type d -regex '/var/www/sites/[^/]+/shared/uploads[0-9/]*' \) -printf '%p\t%T@ %i %m %U:%G %s %l\n'
"""
"""All but the manifests, the fences and directories of two kinds: of uploads, of which WordPress makes one each
month, and Debian's of Certbot, which makes empty ones when its timer goes. Path, and what
changes when somebody writes it, even the same again."""
MANIFESTS = 'cd /etc/trueup; for f in node.json environments/*.json; do echo "$f"; cat "$f" | tr -d \'\\n\'; echo; done'
"""Names, each with its JSON in the next line."""


def units(node: Node) -> dict[str, dict[str, str]]:
    """Services, timers and sockets that are there to stay, by name, with all that a restart or a reload changes."""
    blocks = node.ssh(UNITS.strip()).stdout.strip().split("\n\n")
    found = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
    standing = [one for one in found if one["ActiveState"] == "active" and one.get("Type") != "oneshot"]
    for one in standing:
        if one["Id"].endswith(".timer"):  # which changes its state whenever it has come
            del one["StateChangeTimestampMonotonic"]
    # Sessions, and single runs, such as that of a look at a site's health.
    passing = ("user@", "session-", "run-", "trueup-run-")
    return {one["Id"]: one for one in standing if not one["Id"].startswith(passing)}


def reloads(node: Node) -> int:
    """How often nginx was told to read its files again: each time its workers are replaced."""
    return int(node.ssh(RELOADS).stdout)


def files(node: Node) -> dict[str, str]:
    lines = node.ssh(FILES.strip()).stdout.splitlines()
    return dict(line.split("\t", 1) for line in lines)


def manifests(node: Node) -> dict[str, dict[str, Any]]:
    """The node's own and each environment's, by file below /etc/trueup."""
    lines = node.ssh(MANIFESTS).stdout.splitlines()
    return {name: json.loads(text) for name, text in zip(lines[::2], lines[1::2], strict=True)}


def tables(home: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of the home's database as it is stored."""
    with closing(sqlite3.connect(home / "trueup.db", timeout=60)) as database:
        database.row_factory = sqlite3.Row
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [dict(row) for row in database.execute(f'SELECT * FROM "{name}"')] for name in names}


def answers(plane: ControlPlane) -> dict[str, Rows]:
    """All that the API tells, by resource and id."""
    sites = _list(plane, "/api/sites")
    environments: Rows = {}
    for site in sites.values():
        environments |= _list(plane, f"/api/sites/{site['id']}/environments")
    of = {"backups": "backups", "domains": "domains"}
    return {
        "sites": sites,
        "environments": {id_: _get(plane, f"/api/environments/{id_}") for id_ in environments},
        "nodes": _list(plane, "/api/nodes"),
        "jobs": _list(plane, "/api/jobs?limit=200"),
        "reports": _list(plane, "/api/drift-reports"),
        **{name: _of_each(plane, environments, path) for name, path in of.items()},
    }


def _of_each(plane: ControlPlane, environments: Rows, path: str) -> Rows:
    found: Rows = {}
    for id_ in environments:
        found |= _list(plane, f"/api/environments/{id_}/{path}")
    return found


def _list(plane: ControlPlane, url: str) -> Rows:
    return {one["id"]: one for one in _get(plane, url)}


def _get(plane: ControlPlane, url: str) -> Any:
    answer = plane.http.get(url)
    assert answer.status_code == 200, f"{url}: {answer.text}"
    return answer.json()
