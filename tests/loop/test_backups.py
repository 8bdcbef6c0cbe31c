"""What of backups is known without a node: a manifest as it is written, and the list that a bucket gives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from xml.sax.saxutils import escape

import pytest

from reconciler.core.manifests import Storage as Declared
from reconciler.loop.backups import GONE, MOST_TABLES, _in_bucket, is_due, seen_environments, written
from reconciler.records.backups import Backup
from reconciler.storage.bucket import SMALL, Storage
from reconciler.storage.secret_store import Secrets
from tests.api.conftest import control, fresh_home
from tests.api.control import Control
from tests.core.fake_node import configured, fresh

__all__ = ["control", "fresh_home"]
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC).isoformat()


def _manifest(id_: UUID, tables: dict[str, int]) -> dict[str, Any]:
    return {
        "id": str(id_),
        "environment_id": str(uuid4()),
        "scope": "db",
        "created_at": NOW,
        "retention_until": NOW,
        "objects": {"database.sql.zst": {"sha256": "0" * 64, "size_bytes": 7}},
        "tables": tables,
    }


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[Storage, dict[str, bytes]]]:
    """A bucket, and what is in it by key; an object that is None is in the list alone."""
    objects: dict[str, bytes] = {}

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            key = self.path.partition("?")[0].removeprefix("/backups").lstrip("/")
            if not key:
                keys = "".join(f"<Contents><Key>{escape(one)}</Key></Contents>" for one in sorted(objects))
                self._say(200, f"<ListBucketResult>{keys}</ListBucketResult>".encode())
            elif objects.get(key):
                self._say(200, objects[key])
            else:
                self._say(404, b"<Error><Code>NoSuchKey</Code></Error>")

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    secrets = Secrets(tmp_path / "secrets")
    secrets.put("backups", {"access_key": "a", "secret_key": "b"})
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        declared = {"endpoint": f"http://127.0.0.1:{server.server_port}", "bucket": "backups"}
        yield Storage(Declared.model_validate(declared), secrets), objects
        server.shutdown()


def test_a_manifest_can_be_read_whatever_a_site_calls_its_tables(kept: tuple[Storage, dict[str, bytes]]) -> None:
    storage, objects = kept
    hostile = {f"{n:04}".ljust(64, "\u00e9"): n for n in range(MOST_TABLES)}
    for tables, told in (({"wp_posts": 3}, {"wp_posts": 3}), (hostile, None)):
        manifest = _manifest(uuid4(), tables)
        objects["a/manifest.json"] = written(manifest)
        assert json.loads(storage.get("a/manifest.json")) == {**manifest, "tables": told}


def test_an_object_that_is_no_manifest_hides_no_other_backup(kept: tuple[Storage, dict[str, bytes]]) -> None:
    storage, objects = kept
    good = uuid4()
    objects["b/manifest.json"] = written(_manifest(good, {}))
    objects["a/manifest.json"] = b"x" * (SMALL + 1)
    # Removed since it was listed.
    objects["a/gone/manifest.json"] = b""
    objects["a/other/manifest.json"] = b"[]"
    assert [one.id for one in _in_bucket(storage)] == [good]


def test_a_backup_that_is_yet_to_come_puts_none_off_and_opens_no_gate(control: Control) -> None:
    """A clock that was ahead by a year would have an environment without backups for a year."""
    environment, now = uuid4(), control.clock().replace(hour=12, minute=0, second=0, microsecond=0)
    backups, ahead = control.records.backups, now + timedelta(days=365)
    one = Backup(id=uuid4(), environment_id=environment, backup_scope="full", status="completed", created_at=ahead)
    backups.save(replace(one, completed_at=ahead))
    assert is_due(environment, "0 3 * * *", backups, now)
    assert backups.newest_full(environment, now) is None
    backups.save(replace(one, id=uuid4(), created_at=now.replace(hour=3)))
    assert not is_due(environment, "0 3 * * *", backups, now)
    assert is_due(environment, "0 3 * * *", backups, now + timedelta(hours=15))


def test_an_environment_is_on_no_node_that_was_thrown_away(control: Control) -> None:
    """The newest backup of one that a node has is kept for ever: what was removed with its node must not be."""
    _, declared = control.create_site("acme")
    fleet, now = control.state.fleet(), control.clock()
    (node,) = fleet.nodes.values()
    there = configured(fleet.environment_variables(declared))
    left, thrown_away = uuid4(), uuid4()
    for node_id, environment in ((node.id, left), (uuid4(), thrown_away)):
        answer = fresh().model_copy(update={"environments": {str(environment): there}})
        control.records.observations.save(node_id, answer, now)
    assert seen_environments(control.state, fleet, now + GONE - timedelta(minutes=1)) == {left, thrown_away}
    assert seen_environments(control.state, fleet, now + GONE) == {left}
