"""No space left where the control plane keeps its things: an answer, and everything that was there is whole."""

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Response

from tests.controlplane import MakeControlPlane, closed_port, make_home, node_document, run_git


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)]
    mounted = subprocess.run(argv, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(ballast: Path, room: int) -> None:
    """Leave `room` pages free."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    os.truncate(ballast, ballast.stat().st_size // 4096 * 4096 - room * 4096)


def test_full(control_plane: MakeControlPlane, fresh_home: Path, small_disk: Path) -> None:
    home = small_disk / "home"
    make_home(fresh_home, home)
    plane = control_plane(home=home, TRUEUP_WORKERS="0")
    plane.clone.push({"nodes/web-1.yaml": node_document(port=closed_port())})
    plane.create_site("before")
    environment = plane.environment_of("before")["id"]
    ballast = small_disk / "ballast"
    told = []
    for room in (0, 1, 2, 4, 8, 16):
        ballast.unlink(missing_ok=True)
        fill(ballast, room)
        toggled = plane.http.patch(f"/api/environments/{environment}/cache", json={"redis_cache_enabled": False})
        created = plane.http.post("/api/sites", json={"name": "Full", "slug": f"full-{room}"})
        told += [toggled, created]
        assert plane.http.get("/healthz").status_code == 200
        assert plane.http.get("/readyz").status_code == 503
        assert_whole(home)
    assert any(answer.status_code == 503 for answer in told)
    assert all(is_answer(answer) for answer in told), [answer.text for answer in told]

    ballast.unlink()

    assert plane.http.get("/readyz").status_code == 200
    plane.create_site("after")
    accepted = {answer.json()["job_id"] for answer in told if answer.status_code == 202}
    assert accepted <= plane.declaring_commits().keys()
    refused = {answer.request.content for answer in told if answer.status_code != 202}
    slugs = {site["slug"] for site in plane.http.get("/api/sites").json()}
    assert {"before", "after"} <= slugs
    assert not [slug for slug in slugs if any(f'"{slug}"'.encode() in content for content in refused)]
    assert_whole(home)
    plane.terminate()
    plane.restart()
    assert plane.http.get("/api/sites").status_code == 200


def is_answer(answer: Response) -> bool:
    body = answer.json()
    if answer.status_code == 202:
        return body.keys() == {"job_id"}
    return answer.status_code == 503 and body["code"] in {"records_error", "store_error"} and bool(body["message"])


def assert_whole(home: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{home / 'trueup.db'}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    run_git(home / "store.git", "fsck", "--strict")
