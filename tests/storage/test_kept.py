"""What a storage says of a backup, and what it only says of itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from reconciler.core.errors import JobError
from reconciler.core.manifests import Storage as Declared
from reconciler.records.backups import Backup
from reconciler.storage.bucket import Storage
from reconciler.storage.kept import manifest_of
from reconciler.storage.secret_store import Secrets
from tests.controlplane import closed_port

MANIFEST = b'{"format": 1}'
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
Say = Callable[[BaseHTTPRequestHandler], None]


def _refuses(status: int, code: str) -> Say:
    def say(handler: BaseHTTPRequestHandler) -> None:
        body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
        _answer(handler, status, body, len(body))

    return say


def _gives(body: bytes, length: int | None = None) -> Say:
    return lambda handler: _answer(handler, 200, body, len(body) if length is None else length)


def _answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, length: int) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    secrets = Secrets(tmp_path / "secrets")
    secrets.put("backups", {"access_key": "a", "secret_key": "b"})
    return secrets


@pytest.fixture
def storage(request: pytest.FixtureRequest, secrets: Secrets) -> Iterator[Storage]:
    """A service that answers every request alike."""

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request.param(self)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield _storage(server.server_port, secrets)
        server.shutdown()


def _storage(port: int, secrets: Secrets) -> Storage:
    declared = {"endpoint": f"http://127.0.0.1:{port}", "bucket": "backups"}
    return Storage(Declared.model_validate(declared), secrets)


BACKUP = Backup(
    id=uuid4(),
    environment_id=uuid4(),
    backup_scope="full",
    status="completed",
    storage_path="a/b",
    checksum=sha256(MANIFEST).hexdigest(),
    created_at=NOW,
)


@pytest.mark.parametrize("storage", [_gives(MANIFEST)], indirect=True)
def test_a_manifest_that_is_as_it_was_written(storage: Storage) -> None:
    assert manifest_of(BACKUP, storage) == {"format": 1}
    with pytest.raises(JobError, match="is not what was written") as failed:
        manifest_of(replace(BACKUP, checksum="0"), storage)
    assert failed.value.job_code == "BACKUP_DAMAGED"


@pytest.mark.parametrize(
    ("storage", "code"),
    [
        (_refuses(404, "NoSuchKey"), "BACKUP_DAMAGED"),
        (_gives(b"x" * ((1 << 20) + 1)), "BACKUP_DAMAGED"),
        (_refuses(404, "NoSuchBucket"), "STORAGE_UNAVAILABLE"),
        (_refuses(403, "AccessDenied"), "STORAGE_UNAVAILABLE"),
        (_gives(MANIFEST[:5], len(MANIFEST)), "STORAGE_UNAVAILABLE"),
    ],
    indirect=["storage"],
)
def test_only_a_storage_that_is_sure_says_something_of_the_backup(storage: Storage, code: str) -> None:
    with pytest.raises(JobError) as failed:
        manifest_of(BACKUP, storage)
    assert failed.value.job_code == code


def test_a_storage_that_is_away_says_nothing_of_the_backup(secrets: Secrets) -> None:
    with pytest.raises(JobError) as failed:
        manifest_of(BACKUP, _storage(closed_port(), secrets))
    assert failed.value.job_code == "STORAGE_UNAVAILABLE"
