"""The store and the API at 1,000 sites; no node is involved."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx

from reconciler.dispatch import Dispatcher
from reconciler.home import Home, clock, create
from reconciler.operations.declaring import Actor
from reconciler.operations.requests import Operations
from reconciler.records.database import migrate, open_database
from reconciler.settings import Settings
from reconciler.state import Records, State
from reconciler.store.documents import render
from reconciler.store.repository import Author, Repository
from tests.bench.measure import Line, p95, seconds
from tests.core import documents as d

SITES = 1000
WRITES = 100
ASKED = 200
ACTOR = Actor("Bench", "bench@example.com")
AUTHOR = Author("Bench", "bench@example.com")


def documents() -> dict[str, bytes]:
    """A node and 1,000 sites with one environment each; documents of the size that the API writes."""
    found = {"nodes/web-1.yaml": render(d.node())}
    for number in range(SITES):
        spec = {
            "wordpress": {"version": "7.1.1"},
            "release": {"id": str(uuid4())},
            "cache": {"fastcgi": True, "redis": True},
        }
        spec |= {"content": {"id": str(uuid4()), "origin": "install", "title": f"Shop {number}"}}
        environment = d.environment(**spec) | {"metadata": {"id": str(uuid4()), "name": "Production"}}
        found[f"sites/shop-{number}/site.yaml"] = render(d.site(f"Shop {number}"))
        found[f"sites/shop-{number}/environments/production.yaml"] = render(environment)
    return found


def run(say: Callable[[str], None]) -> Iterator[Line]:
    with tempfile.TemporaryDirectory(prefix="tb-") as directory:
        settings = Settings(home=Path(directory) / "h")
        settings.home.mkdir()
        say(f"Making a store of {SITES} sites")
        Repository.init(settings.store, documents(), AUTHOR).close()
        create(settings, AUTHOR)
        say("Reading it")
        yield from _reading(settings)
        yield _below_a_folder(settings.store, Path(directory) / "deep")
        say("Writing to it")
        yield from _writing(settings)
        say("Asking the API")
        yield from _api(settings)


def _state(settings: Settings) -> State:
    engine = open_database(settings.database)
    migrate(engine)
    return State(Repository(settings.store), Records(engine))


def _reading(settings: Settings) -> Iterator[Line]:
    state = _state(settings)
    cold = seconds(state.fleet)
    assert len(state.fleet().environments) == SITES, state.fleet().stalled[:3]
    plain = seconds(lambda: _plain_read(settings.store))
    yield Line(
        f"store of {SITES} environments, cold", cold, "s", "≤ 2 s", plain, "git cat-file of every document, unparsed"
    )
    operations = _operations(state, settings)
    taken = []
    for environment_id in list(state.fleet().environments)[:10]:
        operations.set_cache(environment_id, False, None, ACTOR)
        outside = _commit_outside(settings.store)
        taken.append(seconds(state.fleet))
        assert state.fleet().revision == outside
    yield Line("the same after one outside commit", p95(taken) * 1000, "ms", "≤ 50 ms", cold * 1000, "reading it cold")


def _below_a_folder(top: Path, deep: Path) -> Line:
    """All documents, parsed, from a folder of a larger repository; the same of them at the top is the plain way."""
    Repository.init(deep, documents(), AUTHOR, "hosting/wordpress").close()
    took = {path: min(seconds(lambda path=path: _read(path)) for _ in range(3)) for path in (top, deep)}
    return Line(
        f"the documents of {SITES} sites below a folder", took[deep], "s", "as at the top", took[top], "at the top"
    )


def _read(path: Path) -> None:
    with Repository(path) as repository:
        assert len(repository.read().documents) > SITES


def _plain_read(store: Path) -> None:
    listing = subprocess.run(
        ["git", "-C", str(store), "ls-tree", "-r", "--format=%(objectname)", "main"], capture_output=True, check=True
    )
    subprocess.run(
        ["git", "-C", str(store), "cat-file", "--batch"], input=listing.stdout, capture_output=True, check=True
    )


_numbers = count()


def _commit_outside(store: Path) -> str:
    """One commit by plumbing, as a push would bring it; the new head."""
    git = ["git", "-C", str(store)]
    body = render(d.environment() | {"metadata": {"id": str(uuid4()), "name": f"n{next(_numbers)}"}})
    environment = os.environ | {"GIT_INDEX_FILE": str(store / "bench.index")}

    def ask(*arguments: str, data: bytes | None = None) -> str:
        done = subprocess.run([*git, *arguments], input=data, capture_output=True, check=True, env=environment)
        return done.stdout.decode().strip()

    blob = ask("hash-object", "-w", "--stdin", data=body)
    ask("read-tree", "main")
    ask("update-index", "--cacheinfo", f"100644,{blob},sites/shop-7/environments/production.yaml")
    identity = {f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment.update(identity)
    commit = ask("commit-tree", ask("write-tree"), "-p", "main", "-m", "Outside")
    ask("update-ref", "refs/heads/main", commit)
    return commit


def _operations(state: State, settings: Settings) -> Operations:
    return Operations(state, Dispatcher(settings.wake_socket), clock, uuid4)


def _writing(settings: Settings) -> Iterator[Line]:
    with Home.open(settings) as home:
        ids = list(home.state.fleet().environments)
        flags = [(ids[number % 50], number // 50 % 2 == 0) for number in range(WRITES)]
        plain = 20 / seconds(lambda: [_commit_outside(settings.store) for _ in range(20)])
        alone = WRITES / seconds(lambda: [home.operations.set_cache(id_, flag, None, ACTOR) for id_, flag in flags])
        yield Line("accepted writes a second, one at a time", alone, "/s", "", plain, "git plumbing commits alone")
        with ThreadPoolExecutor(16) as pool:

            def together() -> None:
                list(pool.map(lambda flag: home.operations.set_cache(flag[0], not flag[1], None, ACTOR), flags))

            parallel = WRITES / seconds(together)
        yield Line("accepted writes a second, 16 at a time", parallel, "/s", "", alone, "one at a time")


def _api(settings: Settings) -> Iterator[Line]:
    with Home.open(settings) as home:
        home.records.admins.set_password("bench@example.com", "correct horse battery", clock())
        environment_id = next(iter(home.state.fleet().environments))
    with _served(settings) as http:
        credentials = {"email": "bench@example.com", "password": "correct horse battery"}
        http.post("/api/login", json=credentials).raise_for_status()
        floor = _asked(http, "/healthz")
        yield Line("GET /api/sites, p95 at 1,000 sites", _asked(http, "/api/sites"), "ms", "", floor, "GET /healthz")
        one = _asked(http, f"/api/environments/{environment_id}")
        yield Line("GET /api/environments/{id}, p95", one, "ms", "", floor, "GET /healthz")


def _asked(http: httpx.Client, path: str) -> float:
    http.get(path).raise_for_status()
    return p95([seconds(lambda: http.get(path).raise_for_status()) for _ in range(ASKED)]) * 1000


@contextmanager
def _served(settings: Settings) -> Iterator[httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"TRUEUP_HOME": str(settings.home), "TRUEUP_LISTEN_PORT": str(port)}
    environment |= {"TRUEUP_WORKERS": "0", "TRUEUP_SCHEDULE": "false"}
    with (settings.home / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("trueup")), "serve"], env=environment, stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            _wait_ready(http)
            yield http
    finally:
        process.terminate()
        process.wait(20)


def _wait_ready(http: httpx.Client) -> None:
    for _ in range(200):
        try:
            if http.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the API did not become ready")
