"""Addresses and archives that a client may not have the control plane take: refused, and nothing is declared."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from tests.api.control import Control, assert_error
from tests.api.test_cancel import environment

__all__ = ["environment"]

OCTETS = {"Content-Type": "application/octet-stream"}
INSIDE = [
    "127.0.0.1",
    "[::1]",
    "169.254.169.254",
    "10.0.0.1",
    "192.168.1.1",
    "[fd00::1]",
    "[::ffff:127.0.0.1]",
    "0x7f000001",
]
SECRET = "hunter2"

REFUSED: list[tuple[str, str, int, str]] = [
    *(
        ("git", f"{scheme}{host}/site.git", 409, "source_refused")
        for scheme in ("https://", "git://", "ssh://git@")
        for host in INSIDE
    ),
    ("git", "file:///etc/passwd", 400, "invalid_request"),
    ("git", "ext::sh -c id", 400, "invalid_request"),
    ("git", "--upload-pack=id", 400, "invalid_request"),
    ("git", "https://example.com/site.git#--upload-pack=id", 409, "source_refused"),
    ("git", "https://example.com/-c", 409, "source_refused"),
    ("git", f"https://ada:{SECRET}@example.com/site.git", 409, "source_refused"),
    ("git", "https://example.com/site.git?x=1", 409, "source_refused"),
    ("upload", "file:///etc/passwd", 400, "invalid_request"),
    ("upload", "upload:../../../etc/passwd", 400, "invalid_request"),
    ("upload", "upload:00000000-0000-4000-8000-000000000000", 409, "source_unavailable"),
    ("upload", "s3://no/such/bucket", 409, "source_refused"),
    ("upload", "gopher://127.0.0.1:6379/_FLUSHALL", 400, "invalid_request"),
]


@pytest.mark.parametrize(("kind", "ref", "status", "code"), REFUSED)
def test_no_release_comes_from_there(
    control: Control, client: TestClient, environment: UUID, kind: str, ref: str, status: int, code: str
) -> None:
    before, jobs = control.state.fleet().revision, client.get("/api/jobs").json()
    answer = client.post(f"/api/environments/{environment}/deploy", json={"source_type": kind, "source_ref": ref})
    message = assert_error(answer, status, code)
    assert SECRET not in message
    assert control.state.fleet().revision == before
    assert client.get("/api/jobs").json() == jobs


@pytest.mark.parametrize("host", INSIDE)
def test_no_import_comes_from_there(control: Control, client: TestClient, environment: UUID, host: str) -> None:
    before, [site] = control.state.fleet().revision, client.get("/api/sites").json()
    answer = client.post(f"/api/sites/{site['id']}/import", json={"archive_url": f"http://{host}/export.tar.gz"})
    assert_error(answer, 409, "source_refused")
    assert control.state.fleet().revision == before


UPLOADS: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "nothing": (b"", {}, 400, "invalid_request"),
    "a program": (b"\x7fELF" + b"x" * 100, {}, 400, "invalid_request"),
    "a form": (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "invalid_request"),
    "more than anybody may send": (b"\x1f\x8b", {"Content-Length": str(1 << 40)}, 413, "upload_too_large"),
}


@pytest.mark.parametrize("what", UPLOADS)
def test_no_such_upload_is_kept(control: Control, client: TestClient, what: str) -> None:
    body, headers, status, code = UPLOADS[what]
    assert_error(client.post("/api/uploads", content=body, headers={**OCTETS, **headers}), status, code)
    assert not list((control.settings.home / "uploads").glob("*"))


def test_an_upload_that_turns_out_too_large_is_not_kept(
    control: Control, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control.app.state.dependencies.settings, "upload_max_mb", 1)

    def chunks() -> Iterator[bytes]:
        yield b"\x1f\x8b\x08\x00"
        for _ in range(17):
            yield b"x" * (64 << 10)

    assert_error(client.post("/api/uploads", content=chunks(), headers=OCTETS), 413, "upload_too_large")
    assert not list((control.settings.home / "uploads").glob("*"))


def test_nobody_uploads_without_a_session(control: Control) -> None:
    answer = control.client().post("/api/uploads", content=b"\x1f\x8b\x08\x00", headers=OCTETS)
    assert_error(answer, 401, "unauthorized")
