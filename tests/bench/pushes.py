"""From `git push` until the job that applies it has started: by a forge's webhook, and into the store itself.

The control plane serves as always, but looks at nothing by itself for an hour: what is measured is the hooks' doing.
The node is a stored answer and an address that refuses: a job starts, and fails when it connects. Each push comes into
quiet: after a look at a forge the next one rests for up to two seconds, which a push right after another would wait.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from reconciler.home import Home, clock, create
from reconciler.loop.following import REST_S
from reconciler.settings import Settings
from tests.bench.measure import Line, p95, seconds
from tests.controlplane import (
    AUTHOR,
    EMAIL,
    PASSWORD,
    Clone,
    ControlPlane,
    closed_port,
    node_document,
    run_git,
    site_documents,
    until,
)
from tests.upstream.test_hooks import make_key, observe, tell

PUSHES = 12
AIM = "≤ 5 s"
PLAIN_IS = "git push to a bare repository, and somebody's git fetch"
NEVER = "3600"
SITES = [f"shop-{number}" for number in range(PUSHES + 1)]


def run(say: Callable[[str], None]) -> Iterator[Line]:
    # Short, because the path of a Unix socket is.
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        for number, (where, by_forge) in enumerate((("to a forge, webhook", True), ("into the store", False))):
            top = Path(directory, str(number))
            top.mkdir()
            say(f"Pushing {where}: {PUSHES} times")
            ours, plain = _measured(top, by_forge=by_forge)
            what = f"git push {where} → apply started"
            yield Line(f"{what}, p50", statistics.median(ours), "s", AIM, statistics.median(plain), PLAIN_IS)
            yield Line(f"{what}, p95", p95(ours), "s", AIM, p95(plain), PLAIN_IS)


def _measured(top: Path, *, by_forge: bool) -> tuple[list[float], list[float]]:
    """Seconds of each push, and of the same commit pushed to and fetched from a bare repository; in turn."""
    home, forge, bare = top / "h", top / "forge.git", top / "plain.git"
    _make(home)
    for repository in (forge, bare):
        run_git(top, "init", "-q", "--bare", "--initial-branch=main", str(repository))
    upstream = {"TRUEUP_UPSTREAM": f"file://{forge}"} if by_forge else {}
    quiet = dict.fromkeys(("TRUEUP_OBSERVE_INTERVAL_S", "TRUEUP_STORE_POLL_S", "TRUEUP_UPSTREAM_POLL"), NEVER)
    plane = ControlPlane(home, **quiet, **upstream)
    try:
        plane.start().login()
        if by_forge:
            until(lambda: plane.http.get("/readyz").json()["upstream"] == "in-step", "the first look", told=plane.log)
            tell(forge, "github", plane, make_key(plane))
        person = Clone(forge if by_forge else plane.store, top / "person")
        run_git(person.path, "push", "-q", str(bare), "HEAD:main")
        other = Clone(bare, top / "other")
        # The first of each warms up.
        pairs = [_pushed(plane, person, bare, other, slug) for slug in SITES][1:]
    finally:
        plane.close()
    return [ours for ours, _ in pairs], [plain for _, plain in pairs]


def _make(home: Path) -> None:
    settings = Settings(home=home)
    create(settings, AUTHOR)
    with Home.open(settings) as opened:
        opened.records.admins.set_password(EMAIL, PASSWORD, clock())
    documents = {"nodes/web-1.yaml": node_document(port=closed_port())}
    for slug in SITES:
        documents |= site_documents(slug)
    Clone(settings.store, home.with_name("first")).push(documents, "Add what is there")


def _pushed(plane: ControlPlane, person: Clone, bare: Path, other: Clone, slug: str) -> tuple[float, float]:
    environment = plane.environment_of(slug)["id"]
    _until_idle(plane)
    # The last job found the node gone; of one that is gone nothing is decided.
    observe(plane)
    until(lambda: _has_rested(plane), "the rest after the last look at the forge", 60)
    path = person.path / f"sites/{slug}/environments/production.yaml"
    path.write_text(path.read_text().replace("redis: true", "redis: false"))
    run_git(person.path, "commit", "-q", "-a", "-m", f"Switch the object cache of {slug} off")
    began = time.perf_counter()
    run_git(person.path, "push", "-q", "origin", "HEAD:main")
    until(lambda: _started(plane, environment), f"the job of {slug} to start", 60, plane.log)
    ours = time.perf_counter() - began

    def plainly() -> None:
        run_git(person.path, "push", "-q", str(bare), "HEAD:main")
        run_git(other.path, "fetch", "-q")

    return ours, seconds(plainly)


def _has_rested(plane: ControlPlane) -> bool:
    told = plane.home / "upstream.json"
    if not told.exists():
        return True
    looked = datetime.fromisoformat(json.loads(told.read_text())["checked_at"])
    return clock() - looked > timedelta(seconds=REST_S + 0.1)


def _started(plane: ControlPlane, environment: str) -> bool:
    return any(job["started_at"] for job in _jobs(plane, environment_id=environment) if job["job_type"] == "reconcile")


def _until_idle(plane: ControlPlane) -> None:
    until(lambda: not _jobs(plane, status="running"), "the last job to end", 60, plane.log)


def _jobs(plane: ControlPlane, **which: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = plane.http.get("/api/jobs", params=which).json()
    return found
